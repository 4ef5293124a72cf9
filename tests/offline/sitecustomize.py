"""Python loads this at its start when this folder is on PYTHONPATH: no connection but to this machine.

It reaches what the tests start: notebook kernels, the command, torchrun's processes.
"""

import socket

_connect = socket.socket.connect


def _refuse(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        host = str(address[0])
        if host not in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "::") and not host.startswith("127."):
            raise OSError(f"the tests work offline, and something connects to {address}")
    return _connect(self, address)


socket.socket.connect = _refuse
