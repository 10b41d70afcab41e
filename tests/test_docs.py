"""README and docs: short enough, links that lead somewhere, commands that are accepted, examples that run."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

import twinlens
from tests.running import CommandLine, installed
from twinlens.conf.checking.checks import check_command_line
from twinlens.conf.checking.written_config import replayable

REPOSITORY = Path(__file__).resolve().parents[1]
CONF = REPOSITORY / "conf"
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
NAMED_GROUPS = ("method", "evaluation", "model", "data", "trainer", "logger", "experiment", "debug", "callbacks")
EXTENDED_PACKAGES = (
    "twinlens.data",
    "twinlens.attribution.neuron",
    "twinlens.attribution.instance",
    "twinlens.attribution.evaluation",
)


def fenced(text: str, language: str) -> Iterator[str]:
    """Contents of the code blocks of a language."""
    yield from re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[str]:
    """Arguments of every `python train.py …` in a bash block or in code within a sentence."""
    text = page.read_text(encoding="utf-8")
    inline = re.findall(r"`python train\.py([^`\n]*)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    yield from inline
    for block in fenced(text, "bash"):  # variables of the environment may stand before the command
        yield from re.findall(r"^(?:\w+=\S* )*python train\.py(.*)$", block, flags=re.MULTILINE)


LONG_PAGES = (
    "configuration.md",
    "data.md",
    "ground_truth.md",
    "memory.md",
    "methods.md",
    "reproducing.md",
    "scaling.md",
)
"""Pages to look things up in, whose many commands are checked in the long series."""
COMMANDS = [(page.name, arguments) for page in PAGES for arguments in commands(page)]


def files_in(page: Path) -> dict[str, str]:
    """Files that a page shows: a line with the path in code, a colon, then a block with the content."""
    pattern = r"^`([\w/]+\.(?:py|yaml))`:\n\n```(?:python|yaml)\n(.*?)^```$"
    return dict(re.findall(pattern, page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL))


@pytest.fixture
def extended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The files that docs/extending.md shows, importable; gives the folder of their configurations."""
    root = tmp_path / "extended"
    shown = files_in(REPOSITORY / "docs" / "extending.md")
    for name, content in shown.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    for name in EXTENDED_PACKAGES:
        package = importlib.import_module(name)
        monkeypatch.setattr(
            package, "__path__", [*package.__path__, str(root / name.removeprefix("twinlens.").replace(".", "/"))]
        )
    yield root / "conf"
    for name in shown:
        sys.modules.pop("twinlens." + name.removesuffix(".py").replace("/", "."), None)


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration of a run, for commands that repeat one."""
    from twinlens.train import compose

    folder = tmp_path_factory.mktemp("run")
    config = replayable(compose(CONF, "train", []))
    (folder / "config.yaml").write_text(yaml.safe_dump(dict(config), sort_keys=False), encoding="utf-8")
    return folder


def test_readme_is_short() -> None:
    assert len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) < 200


@pytest.mark.parametrize(
    "page",
    [*PAGES, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"],
    ids=lambda page: page.relative_to(REPOSITORY).as_posix(),
)
def test_links_lead_somewhere(page: Path) -> None:
    """Relative ones to a file and a heading of it; others have the form of an address, and nothing is asked."""
    targets = re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for target in targets:
        if ":" in target:
            assert re.fullmatch(r"https?://([\w-]+\.)+[a-z]+(/\S*)?", target), f"{page.name}: {target}"
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), f"{page.name}: {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in slugs, f"{page.name}: {target}"


@pytest.mark.parametrize(
    "page",
    [*PAGES, REPOSITORY / "CONTRIBUTING.md", REPOSITORY / "CHANGELOG.md"],
    ids=lambda page: page.relative_to(REPOSITORY).as_posix(),
)
def test_tables_are_whole(page: Path) -> None:
    """An empty line within a table would show the rows behind it as text."""
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    broken = []
    for rows in re.findall(r"(?:^\|.*\n)+", prose, flags=re.M):
        first, line, *_ = [*rows.splitlines(), ""]
        if not re.fullmatch(r"\|(?: *:?-+:? *\|)+", line):
            broken.append(first)
    assert broken == []


def test_every_page_is_reached_from_the_readme() -> None:
    """By its links, and by those of the pages that they lead to."""
    reached, ahead = set(), {REPOSITORY / "README.md"}
    while ahead:
        page = ahead.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
        found = {(page.parent / link).resolve() for link in links if link.endswith(".md") and "://" not in link}
        ahead |= {file for file in found if file.is_file()} - reached
    assert [page.name for page in PAGES[1:] if page not in reached] == []


def test_every_argument_of_explain_is_named() -> None:
    page = (REPOSITORY / "docs" / "python.md").read_text(encoding="utf-8").split("| argument | what |")[1]
    cells = " ".join(line.split("|")[1] for line in page.split("\n\n")[0].splitlines()[2:])
    arguments = [*inspect.signature(twinlens.explain).parameters]
    assert [name for name in arguments if not re.search(rf"\b{name}\b", cells)] == []


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 30, "has the search for commands lost its way?"


@pytest.mark.parametrize(
    ("page", "arguments"),
    [pytest.param(*one, marks=[pytest.mark.long] if one[0] in LONG_PAGES else []) for one in COMMANDS],
    ids=lambda value: value.strip()[:60],
)
def test_every_command_is_accepted(page: str, arguments: str, extended: Path, run_folder: Path) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from twinlens.train import compose

    plugin = re.search(r"hydra/(launcher|sweeper)=(joblib|submitit|optuna)", arguments)
    if plugin and not installed(f"hydra_plugins.hydra_{plugin[2]}_{plugin[1]}"):
        pytest.skip(f"the extra {plugin[2]} is not installed")
    typed = [str(run_folder) if word == "RUN" else word for word in shlex.split(arguments, comments=True)]
    if page == "extending.md":
        typed += ["--config-dir", str(extended)]
    check_command_line(typed, CONF, compose, OverridesParser.create().parse_overrides)


@pytest.mark.parametrize("group", NAMED_GROUPS)
def test_every_option_is_named(group: str) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    options = [str(file.relative_to(CONF / group).with_suffix("")) for file in (CONF / group).rglob("*.yaml")]
    assert options
    assert [name for name in options if not re.search(rf"[`=\[,]{name}[`,\]\s]", text)] == []


def hans_table(file: Path) -> None:
    lines = ["gold_label\tsentence1\tsentence2\theuristic"]
    for row in range(60):
        label = ("entailment", "non-entailment")[row % 2]
        lines.append(f"{label}\tThe judge number {row} saw the poet .\tThe poet number {row} slept .\tsubsequence")
    file.with_suffix(".tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def exam_questions(file: Path) -> None:
    rows = [
        {"question": f"What is {row} plus one?", "options": [str(row + n) for n in range(4)], "answer": "B"}
        for row in range(60)
    ]
    file.with_suffix(".jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.mark.parametrize(
    ("data", "make", "names"),
    [
        ("hans", hans_table, ("activation_norm", "state_cosine", "hub_share")),
        ("exam", exam_questions, ("state_cosine", "hub_share")),
    ],
)
def test_the_examples_of_extending_run_together(
    command: CommandLine, extended: Path, data: str, make: Callable[[Path], None], names: tuple[str, ...]
) -> None:
    make(command.folder / "rows")
    (file,) = command.folder.glob("rows.*")
    (arguments,) = [typed for page, typed in COMMANDS if page == "extending.md" and f"data={data} " in typed]
    typed = [word.replace("FILE", str(file)) for word in shlex.split(arguments)]
    finished = command("--config-dir", str(extended), *typed, base=["debug=fdr", "trainer.accelerator=cpu"])
    assert finished.code == 0, finished.err
    results = (finished.folder / "results.csv").read_text(encoding="utf-8")
    assert [name for name in names if name not in results] == []
