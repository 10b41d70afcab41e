"""Build of the site: `python -m docs.site`, from the project's folder. A warning of Sphinx is a failure.

Pages go to build/site/html; build/site/html/index.html opens without a server, its search included.
"""

from __future__ import annotations

import sys
from pathlib import Path

from docs.site.stage import REPOSITORY, stage

BUILD = REPOSITORY / "build" / "site"


def main(folder: Path = BUILD) -> int:
    """Lay out the sources in `folder`/source and build `folder`/html; gives Sphinx's exit code."""
    from sphinx.cmd.build import build_main

    source = folder / "source"
    stage(source)
    options = ["-W", "--keep-going", "-q", "-b", "html", "-c", str(Path(__file__).parent), "-d", str(folder / "trees")]
    options.append("-E")  # all anew: Sphinx does not see that a docstring or the side bar has changed
    code = int(build_main([*options, str(source), str(folder / "html")]))
    if code == 0:
        print(f"open {folder / 'html' / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
