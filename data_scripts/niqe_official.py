"""Fetch the published pristine model of NIQE, for scores that compare with papers: ``NIQE(pristine="official")``.

    python data_scripts/niqe_official.py

The numbers are those of the NIQE authors' release (Mittal et al. 2013); the file is BasicSR's copy of them.
"""

import sys
from pathlib import Path

from srcourse.metrics.niqe import NIQE, official_path

sys.path.append(str(Path(__file__).resolve().parent))  # however this file was found
import fetching
from downloading import Source

FOLDER = "XPixelGroup/BasicSR/8d56e3a045f9fb3e1d8872f92ee4a4f07f886b0a/basicsr/metrics/"
CREDIT = fetching.Credit(
    "NIQE's pristine model, a mean and a covariance of 36 features of 125 photographs",
    "free to use, copy and change with its authors' notice; BasicSR's copy: Apache 2.0",
    "A. Mittal, R. Soundararajan and A. C. Bovik, Making a “Completely Blind” Image Quality Analyzer, IEEE SPL 20(3), 2013",
)


def fetch(
    address: str | None = None,
    sha256: str | None = None,
    *,
    mirror: str | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> Path:
    """Download the model to where `NIQE` looks for it, unless it is there; it appears whole and checked, or not at all.

    Parameters
    ----------
    address, sha256 : str, optional
        Another source than the one in ``checksums.tsv``; both or neither.

    Raises
    ------
    ValueError
        If what comes is another file.
    OSError
        If the address cannot be reached.
    """
    path = official_path()
    source = next(iter(fetching.sources(FOLDER).values()))
    if address is not None:
        base, _, name = address.rpartition("/")
        source = Source(base + "/", name, None, sha256 or source.sha256)
    fetching.fetch([fetching.File(source, path)], path.parent, credit=[CREDIT], mirror=mirror, dry_run=dry_run, progress=progress)
    return path


def main(mirror: fetching.Mirror = None, dry_run: fetching.DryRun = False) -> None:
    """Fetch the published pristine model of NIQE, 12 kB, for scores that compare with papers: --pristine official."""
    where = fetch(mirror=mirror, dry_run=dry_run)
    if not dry_run:
        print(f"{where}: {NIQE('official')}")


if __name__ == "__main__":
    fetching.run(main)
