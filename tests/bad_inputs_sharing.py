"""Runs that cannot be pushed, and rows of others that are not in order."""

from __future__ import annotations

from pathlib import Path

from tests.bad_input_files import Entry, lines

HEADER = "model,data,evaluation,metric,method,value,low,high"
LOGGED_IN = (("HF_TOKEN", "hf_" + "a" * 34),)
"""Somebody is; the tests reach no hub."""
ROWS = "theirs.csv"


def started(folder: Path, trained: Path) -> None:
    """What is left of a run that got as far as its configuration."""
    (folder / "run").mkdir()
    (folder / "run" / "config.yaml").write_text("seed: 0\n", encoding="utf-8")


SHARING: list[Entry] = [
    ("a push to what is no hub", ("push=me/claims",), ("push='me/claims'", "expected hub:NAME"), None),
    ("a name that the hub does not take", ("push=hub:a/b/c",), ("is no name of a repository",), None),
    ("a push of a sweep", ("-m", "push=hub:claims", "seed=0,1"), ("write over each other", "push_of=RUN"), None),
    ("a finished run that goes nowhere", ("push_of=run",), ("add push=hub:NAME",), None),
    ("a push of what is no run", ("push=hub:claims", "push_of=nowhere"), ("nowhere is no run's folder",), None),
    (
        "a push that a file asks for",
        ("--config-dir", ".", "--config-name", "mine"),
        ("push=hub:you/theirs", "on the command line"),
        lines("defaults: [train, _self_]", "push: hub:you/theirs", name="mine.yaml"),
    ),
    (
        "a row of results without its number",
        (f"results.check={ROWS}",),
        ("Column value in line 2", "docs/results.md"),
        lines(HEADER, "tiny,demo,lds,lds,theirs,,,", name=ROWS),
    ),
    (
        "a number of results that is none",
        (f"results.check={ROWS}",),
        ("Column value in line 3", "'high'"),
        lines(HEADER, "tiny,demo,lds,lds,theirs,0.2,,", "tiny,demo,lds,lds,other,high,,", name=ROWS),
    ),
    (
        "results on a split that no data have",
        (f"results.check={ROWS}",),
        ("Column split in line 2", "train, validation, test"),
        lines(f"{HEADER},split", "tiny,demo,lds,lds,theirs,0.2,,,tests", name=ROWS),
    ),
    (
        "an interval from high to low",
        (f"results.check={ROWS}",),
        ("Column low in line 2", "not above high"),
        lines(HEADER, "tiny,demo,lds,lds,theirs,0.2,0.3,0.1", name=ROWS),
    ),
    (
        "two rows of results that measure the same",
        (f"results.check={ROWS}",),
        ("Line 3", "measures the same as line 2"),
        lines(HEADER, *2 * ("tiny,demo,lds,lds,theirs,0.2,,",), name=ROWS),
    ),
    ("a file of results that is not named", ("results=theirs.csv",), ("results.check=FILE",), None),
    ("rows beside no run", (f"report.beside={ROWS}",), ("report.of=RUN",), None),
]
NO_HUB: list[Entry] = [
    ("a push without a connection", ("push=hub:claims",), ("cannot be reached", "push_of=RUN"), None),
    (
        "a push of a run that has ended too early",
        ("push=hub:claims", "push_of=run"),
        ("expected",),
        started,
    ),
]
