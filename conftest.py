"""For every test and every notebook: one thread each, no network, no colour in terminals."""

import os
import sys
from pathlib import Path

# Before torch is loaded, here and in what the tests start: threads of parallel workers get in each other's way.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "agg")

_root = Path(__file__).resolve().parent
_offline = str(_root / "tests" / "offline")
if _offline not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_offline, os.environ.get("PYTHONPATH")]))
sys.path.insert(0, _offline)
import sitecustomize  # noqa: E402, F401 - blocks the sockets of this process


def pytest_collection_modifyitems(config, items):
    """The long ones first, so that the last worker is not left alone with one; solutions must pass their checks."""
    for item in items:
        if item.nodeid.startswith("solutions/"):
            item.add_marker("solutions")
