"""Command `twinlens`, which `python -m twinlens` is too: `python train.py …` from anywhere."""

from __future__ import annotations

import sys

from twinlens.callbacks.processes import loading


def main() -> int:
    """Run the command line; the exit code, see `twinlens.train.main`."""
    loading.begin("__main__")  # what follows takes seconds
    from twinlens import train

    return train.main()


if __name__ == "__main__":
    sys.exit(main())
