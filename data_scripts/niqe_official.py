"""Fetch the published pristine model of NIQE, for scores that compare with papers: ``NIQE(pristine="official")``.

    python data_scripts/niqe_official.py

The numbers are those of the NIQE authors' release (Mittal et al. 2013); the file is BasicSR's copy of them.
"""

from pathlib import Path

import pooch

from srcourse.metrics.niqe import NIQE, official_path

ADDRESS = (
    "https://raw.githubusercontent.com/XPixelGroup/BasicSR/8d56e3a045f9fb3e1d8872f92ee4a4f07f886b0a/basicsr/metrics/niqe_pris_params.npz"
)
SHA256 = "2a7c182a68c9e7f1b2e2e5ec723279d6f65d912b6fcaf37eb2bf03d7367c4296"


def fetch(address: str = ADDRESS, sha256: str = SHA256) -> Path:
    """Download the model to where `NIQE` looks for it, unless it is there; it appears whole and checked, or not at all.

    Raises
    ------
    ValueError
        If what comes is another file.
    OSError
        If the address cannot be reached.
    """
    path = official_path()
    pooch.retrieve(address, known_hash=f"sha256:{sha256}", fname=path.name, path=path.parent)
    return path


if __name__ == "__main__":
    try:
        where = fetch()
    except (ValueError, OSError) as error:
        raise SystemExit(f"niqe_official: {' '.join(str(error).split())}") from None
    print(f"{where}: {NIQE('official')}")
