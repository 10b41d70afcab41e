"""Every line of the list of warnings is said of a run that gives cause for it, and none of a sound run."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import yaml
from datasets import Dataset, load_from_disk
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.callbacks.fake_run import FakeRun
from tests.running import CommandLine
from tests.warnings_table import PAGE, page_of, row_of
from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.results_csv import read_results, write_results
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.run_warning import Facts, Stage, measured
from twinlens.callbacks.results.warnings_list import WARNINGS, warnings_of
from twinlens.callbacks.run.told_warnings import ToldWarnings
from twinlens.conf.checking.checks import check_command_line

pytestmark = pytest.mark.usefixtures("quiet_datasets")

DIRECTIONS = {"accuracy": "higher", "macro_f1": "higher", "sufficiency": "higher", "comprehensiveness": "lower",
              "mrr": "higher"}  # fmt: skip
N_TRAIN, N_TEST = 120, 40
Columns = dict[str, Any]


def facts_of(folder: Path) -> Facts:
    """What a run says after its last stage."""
    files = RunFiles(folder)
    directions = {measured(row): DIRECTIONS[str(row["metric"])] for row in files.results}
    return Facts(files, cut_texts=20, n_examples=N_TRAIN + N_TEST + 10, directions=directions)


def said_of(facts: Facts) -> dict[str, list[str]]:
    """Name → sentences, of all stages."""
    found: dict[str, list[str]] = {}
    for stage in get_args(Stage):
        for name, sentence in warnings_of(facts, stage):
            found.setdefault(name, []).append(sentence)
    return found


def rewrite(folder: Path, change: Callable[[Columns], Mapping[str, Any]]) -> None:
    """Put other columns into a stored dataset."""
    columns = load_from_disk(str(folder)).to_dict()
    columns.update(change(columns))
    shutil.rmtree(folder)
    Dataset.from_dict(columns).save_to_disk(str(folder))


def described(run: Path, method: str, **settings: object) -> None:
    """Put settings into a method.yaml."""
    path = run / "scores" / method / "method.yaml"
    path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text(encoding="utf-8")), **settings}), encoding="utf-8")


def results(run: Path, change: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> None:
    path = run / "results.csv"
    write_results(path, [{**row, **change(row)} for row in read_results(path)])


def one_class(run: Path) -> None:
    rewrite(run / "examples/test", lambda columns: {"prediction": [1] * N_TEST})


def not_above_majority(run: Path) -> None:
    """Half of the tests are right, as many as have the most frequent label."""
    label = [0] * 20 + [1] * 20
    rewrite(run / "examples/test", lambda columns: {"label": label, "prediction": [0, 1] * 20})


def not_learned(run: Path) -> None:
    rewrite(run / "examples/train", lambda columns: {"label": [0, 1, 2] * 40, "prediction": [1, 2, 0] * 40})


def label_without_training(run: Path) -> None:
    def folded(columns: Columns) -> Columns:
        label = [min(one, 1) for one in columns["label"]]
        return {"label": label, "prediction": label}

    rewrite(run / "examples/train", folded)


def no_known_answer(run: Path) -> None:
    for split, n in (("train", N_TRAIN), ("test", N_TEST)):
        told = {"label": [5] * n, "prediction": [6] * n, "target_prob": [0.1] * n}
        rewrite(run / "examples" / split, lambda columns, told=told: told)


def repeated_train_texts(run: Path) -> None:
    """Thirty of them, each the text of its label."""

    def few(columns: Columns) -> Columns:
        return {"input_ids": [[label, 2] for label in columns["label"][:30]] + columns["input_ids"][30:]}

    rewrite(run / "examples/train", few)


def contradicting_train_labels(run: Path) -> None:
    """Four of 120 in two pairs, each with two labels."""
    labels = load_from_disk(str(run / "examples/train"))["label"][:]
    pairs = [next(n for n, label in enumerate(labels) if label == wanted) for wanted in (0, 1)]
    pairs += [next(n for n, label in enumerate(labels) if label == wanted and n not in pairs) for wanted in (0, 1)]

    def same(columns: Columns) -> Columns:
        ids = list(columns["input_ids"])
        ids[pairs[1]], ids[pairs[3]] = ids[pairs[0]], ids[pairs[2]]
        return {"input_ids": ids}

    rewrite(run / "examples/train", same)


def seen_in_train(run: Path) -> None:
    seen = load_from_disk(str(run / "examples/train"))["input_ids"][:5]
    rewrite(run / "examples/test", lambda columns: {"input_ids": [*seen, *columns["input_ids"][5:]]})


def zero_scores(run: Path) -> None:
    """The gradient of one test, by an instance and by a neuron method."""

    def zeroed(name: str) -> Callable[[Columns], Columns]:
        return lambda columns: {name: [np.zeros(len(columns[name][0])).tolist(), *columns[name][1:]]}

    for name in ("top_score", "bottom_score"):
        rewrite(run / "scores/gradsim/test", zeroed(name))
    rewrite(run / "scores/ig/test", zeroed("score"))


def zero_train_gradients(run: Path) -> None:
    def vanished(columns: Columns) -> Columns:
        return {"self_influence": [0.0 if row in (7, 9) else 1.0 for row in columns["index"]]}

    rewrite(run / "scores/influence/train_summary", vanished)


def equal_scores(run: Path) -> None:
    rewrite(run / "scores/gradsim/test", lambda columns: {"top_score": [[1.0] * 20] * 5 + columns["top_score"][5:]})


def one_instance_on_top(run: Path) -> None:
    def led(columns: Columns) -> Columns:
        return {"top_index": [[17, *one[1:]] if i < 38 else one for i, one in enumerate(columns["top_index"])]}

    rewrite(run / "scores/gradsim/test", led)


def large_completeness_residual(run: Path) -> None:
    described(run, "ig", unit="probability")
    rewrite(run / "scores/ig/test", lambda columns: {"completeness": [[0.0, 0.3]] * 3 + columns["completeness"][3:]})


def large_solver_residual(run: Path) -> None:
    described(run, "influence", residual=0.15, solver="lissa", curvature="ggn", damping=0.1)


def far_damping(run: Path) -> None:
    described(run, "influence", residual=1e-9, solver="direct", curvature="ggn", damping=50.0)


def not_above_control(run: Path) -> None:
    def weaker(row: Mapping[str, Any]) -> Mapping[str, Any]:
        mine = row["method"] == "ig" and row["metric"] == "sufficiency"
        return {"value": {1: 43.0, 100: 58.0}[row["k"]]} if mine else {}

    results(run, weaker)


def few_examples(run: Path) -> None:
    results(run, lambda row: {"n": 12} if row["evaluation"] == "duplicates" else {})


CASES: dict[str, tuple[Callable[[Path], None], str]] = {
    "one_class": (one_class, "the model predicts Refuted for all 40 test examples; raise trainer.max_epochs"),
    "not_above_majority": (
        not_above_majority,
        "accuracy on test is 0.500, not reliably above the 0.500 of always answering Supported (40 examples)",
    ),
    "not_learned": (
        not_learned,
        "after the fit, accuracy on train is 0.000, not reliably above the 0.333 of always answering Supported (120 "
        "examples)",
    ),
    "label_without_training": (
        label_without_training,
        "no train example has the label Not Enough Evidence (120 have another)",
    ),
    "no_known_answer": (no_known_answer, "the model's next token is the answer to none of the 40 test prompts"),
    "repeated_train_texts": (
        repeated_train_texts,
        "30 of 120 train examples read the same tokens as another one",
    ),
    "contradicting_train_labels": (
        contradicting_train_labels,
        "4 of 120 train examples read the same tokens as one with another label",
    ),
    "tests_seen_in_train": (
        seen_in_train,
        "5 of 40 test examples read the same tokens as a train example",
    ),
    "zero_scores": (zero_scores, "ig: every listed score of 1 of 40 test examples is zero, the first of them 0"),
    "zero_train_gradients": (
        zero_train_gradients,
        "influence: the gradient of 2 of 120 train examples is zero, the first of them 7",
    ),
    "equal_scores": (equal_scores, "gradsim: the first ten scores of 5 of 40 test examples are equal"),
    "one_instance_on_top": (
        one_instance_on_top,
        "gradsim: train example 17 stands first for 38 of 40 test examples",
    ),
    "large_completeness_residual": (
        large_completeness_residual,
        "ig: the completeness residual of 3 of 40 test examples is above 10% of what is explained, at most 40% "
        "(example 0); raise method.ig.n_steps",
    ),
    "large_solver_residual": (
        large_solver_residual,
        "influence: the solver's relative residual is 0.15; set method.influence.solver=auto",
    ),
    "far_damping": (far_damping, "influence: damping is 50 of the mean eigenvalue"),
    "not_above_control": (
        not_above_control,
        "ig is not reliably above its random control in faithfulness, sufficiency @100: 58 against 56, better by 2 "
        "(95 % interval -3.544 to 7.544)",
    ),
    "few_examples": (few_examples, "results of duplicates rest on few examples, at least one on 12"),
}
"""Name → what spoils a sound run, and what is then said of it. Cut texts are counted by the run, not by its files."""


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of which nothing is to be said, to be copied and spoiled."""
    return FakeRun(n_train=N_TRAIN, n_test=N_TEST).write(tmp_path_factory.mktemp("sound") / "run")


@pytest.fixture
def run(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "run"))


def test_nothing_is_said_of_a_sound_run(sound: Path) -> None:
    assert said_of(facts_of(sound)) == {}


@pytest.mark.parametrize("name", CASES)
def test_each_line_is_said_where_it_applies(name: str, run: Path) -> None:
    spoil, sentence = CASES[name]
    spoil(run)
    said = said_of(facts_of(run))
    assert [line for line in said.pop(name) if sentence in line], said
    assert said == {}, "what spoils one thing is warned of once"


def test_cut_texts_are_said(sound: Path) -> None:
    facts = facts_of(sound)
    assert said_of(replace(facts, cut_texts=85)) == {}, "half of the texts"
    assert said_of(replace(facts, cut_texts=86)) == {
        "most_texts_cut": ["86 of 170 texts are cut at the longest length; raise data.max_length."]
    }


def test_every_line_of_the_list_has_a_case() -> None:
    assert {*CASES, "most_texts_cut"} == {warning.name for warning in WARNINGS}
    assert len({warning.name for warning in WARNINGS}) == len(WARNINGS)


def test_the_page_shows_the_list() -> None:
    rows = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    assert rows == [row_of(warning) for warning in WARNINGS]
    assert PAGE.read_text(encoding="utf-8") == page_of(), "python -m tests.warnings_table"


def test_a_label_cannot_command_the_terminal(run: Path) -> None:
    one_class(run)
    path = run / "model" / "config.json"
    path.write_text('{"id2label": {"0": "a", "1": "b\\u001b[31m{n}", "2": "c"}}', encoding="utf-8")
    assert said_of(facts_of(run))["one_class"][0].startswith("the model predicts b\\x1b[31m{n} for all")


REMEDIES = (
    "trainer.max_epochs=4", "model.learning_rate=1e-4", "data.max_length=99", "method=[tracin]",
    "method=[gradsim_cosine]", "method.ig.n_steps=50", "method.influence.damping=0.01", "method.influence.solver=auto",
)  # fmt: skip


@pytest.mark.parametrize("argument", REMEDIES)
def test_remedies_are_accepted(argument: str, repository: Path) -> None:
    from twinlens.train import compose

    check_command_line([argument], repository / "conf", compose, OverridesParser.create().parse_overrides)
    key = argument.partition("=")[0] if not argument.startswith("method=") else argument.replace("[", "").rstrip("]")
    told = " ".join(warning.remedy.replace("{method}", name) for warning in WARNINGS for name in ("ig", "influence"))
    assert key in told


def test_a_run_says_it_once_and_again_from_the_store(command: CommandLine) -> None:
    """A model that is hardly trained predicts one class; the second run reads every stage from the store."""
    arguments = (
        "trainer.accelerator=cpu", "trainer.limit_train_batches=1", "trainer.max_epochs=1", "model.learning_rate=1e-12",
        "data.n_train=60", "data.n_test=24", "data.n_validation=12", "data.n_twins=2", "method=[gradsim]",
        "evaluation=[accuracy]",
    )  # fmt: skip
    finished = [command(*arguments, f"hydra.run.dir=run{number}", base=()) for number in (1, 2)]
    lines = [[line for line in run.out.splitlines() if line.startswith("warning: ")] for run in finished]
    assert "fit: computed" in finished[0].out
    assert "fit: read from the store" in finished[1].out
    assert lines[0] == lines[1] == list(dict.fromkeys(lines[0]))
    assert any("the model predicts " in line for line in lines[0])
    assert finished[0].out.index("the model predicts") < finished[0].out.index("gradsim: computed"), "in time"
    for run in finished:
        kept = yaml.safe_load((command.folder / run.folder / "warnings.yaml").read_text(encoding="utf-8"))
        assert [f"warning: {one['sentence']}" for one in kept] == lines[0]
        page = unescape((command.folder / run.folder / "report.html").read_text(encoding="utf-8"))
        assert all(one["sentence"] in page[: page.index("<nav")] for one in kept)


def test_warnings_of_an_earlier_run_in_the_folder_go(sound: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(sound, tmp_path / "again"))
    (run / "warnings.yaml").write_text("[{name: one_class, sentence: Old.}]", encoding="utf-8")
    assert RunFiles(run).warnings == ["Old."]
    ToldWarnings(run)
    assert RunFiles(run).warnings == []


def test_a_damaged_file_of_warnings_is_named(run: Path) -> None:
    for content in ("a: 1", "[just a sentence]"):
        (run / "warnings.yaml").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=r"warnings\.yaml holds"):
            _ = RunFiles(run).warnings
