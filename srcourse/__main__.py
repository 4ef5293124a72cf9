"""``python -m srcourse``: the same as the ``srcourse`` command, for torchrun."""

from srcourse.cli import main

main()
