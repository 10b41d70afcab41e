"""Reading a run's files for the report: every reader checks what it reads and names what is missing or damaged.

Datasets are opened memory-mapped (`twinlens.callbacks.results.indexed_rows`), so that a run of any size costs the
memory of what the page shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from datasets import load_from_disk

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import TokenReadout, choice_names
from twinlens.callbacks.attribute.score_files import CONTROL
from twinlens.callbacks.passes.example_columns import CHOICES, PLANTS, SPELLED
from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.indexed_rows import REMAKE, Rows
from twinlens.callbacks.results.results_csv import read_csv, read_results, unprotect
from twinlens.callbacks.results.token_names import TokenNames
from twinlens.callbacks.store.formats import FORMAT, METHOD_FORMAT, RUN_FORMAT, require_known_format
from twinlens.conf.checking.former_names import current_output

WARNINGS_FILE = "warnings.yaml"
BESIDE_FILE = "results_beside.csv"
"""Checked rows of others, which the run's tables, figures and page show beside its own."""
_EXPLAINED = ("test", "validation", "train")
_INSTANCE_COLUMNS = ("index", "top_index", "top_score", "bottom_index", "bottom_score")
_NEURON_COLUMNS = ("index", "layer", "unit", "score")
_COLUMNS = {
    "instance": _INSTANCE_COLUMNS,
    "neuron": _NEURON_COLUMNS,
    "unit": (*_INSTANCE_COLUMNS, "unit_kind", "site", "layer", "unit", "contribution"),
}
_SUMMARY_COLUMNS = ("index", "mean", "max", "votes")
_EXAMPLE_COLUMNS = ("index", "label")


ScoreKind = Literal["instance", "neuron", "unit"]


@dataclass(frozen=True)
class ScoreSet:
    """The scores of one method on one split.

    Attributes:
        name: `method.<name>` of the config.
        kind: which of the two lenses, or training instances of units.
        rows: one row per explained example, or per unit of one.
        settings: method.yaml.
        seed: the seed shown where the method was run with several.
        seeds: all of them.
        summary: per train instance mean, max, votes and self-influence over all explained examples.
    """

    name: str
    kind: ScoreKind
    rows: Rows
    settings: Mapping[str, Any]
    seed: int | None = None
    seeds: tuple[int, ...] = ()
    summary: Rows | None = None

    @property
    def control(self) -> bool:
        """A control, which readers compare with but do not read."""
        return self.settings.get(CONTROL) is True


@dataclass
class RunFiles:
    """The files of one run, read as they are asked for."""

    path: Path
    _opened: dict[Path, Rows] = field(default_factory=dict)

    @cached_property
    def config(self) -> dict[str, Any]:
        """config.yaml."""
        return _mapping(_parsed(self.path / "config.yaml"), self.path / "config.yaml")

    @cached_property
    def metrics(self) -> dict[str, float]:
        """metrics.json, flat, without its format."""
        path = self.path / "metrics.json"
        metrics = _mapping(_parsed(path), path)
        require_known_format(path, metrics, RUN_FORMAT)
        metrics.pop(FORMAT, None)
        for name, value in metrics.items():
            if not isinstance(value, int | float):
                raise UserError(f"{name} in {path} is {value!r}; expected a number: {REMAKE}.")
        return metrics

    @cached_property
    def data_notes(self) -> list[str]:
        """data.yaml: what was done to the data, one sentence each; empty where nothing was."""
        return [str(note) for note in _list(self.path / "data.yaml")]

    @cached_property
    def warnings(self) -> list[str]:
        """The sentences of warnings.yaml, what the run says about itself; empty where there is nothing to say."""
        path = self.path / WARNINGS_FILE
        return [str(_mapping(said, path).get("sentence", "")) for said in _list(path)]

    @cached_property
    def results(self) -> list[dict[str, Cell]]:
        """results.csv, and behind it the rows of others that stand beside it (`report.beside`)."""
        beside = self.path / BESIDE_FILE
        return [*self.own_results, *(read_results(beside) if beside.exists() else ())]

    @cached_property
    def own_results(self) -> list[dict[str, Cell]]:
        """results.csv."""
        if (self.path / "metrics.json").exists():
            _ = self.metrics  # carries the format of the folder
        return read_results(self.path / "results.csv")

    @cached_property
    def label_names(self) -> dict[int, str]:
        """id2label of model/config.json, letters for the choices of a question; empty where the run keeps no model."""
        examples = self.examples(self.split).dataset
        if CHOICES in examples.column_names and len(examples):
            return dict(enumerate(choice_names(len(examples[0][CHOICES]))))
        names = self.model_config.get("id2label") or {}
        path = self.path / "model" / "config.json"
        try:
            return {int(number): str(name) for number, name in _mapping(names, path).items()}
        except ValueError:
            raise UserError(f"id2label in {path} has keys that are no numbers; expected class ids: {REMAKE}.") from None

    def gold_names(self, split: str) -> dict[int, str]:
        """Names of a split's labels: those that its file gives, where they are folded, else `label_names`."""
        names = getattr(self.examples(split).dataset.features["label"], "names", None)
        return self.label_names if names is None else dict(enumerate(names))

    @cached_property
    def of_vocabulary(self) -> bool:
        """Whether outputs are tokens, so that a number of an output is one of the tokenizer's."""
        rows = self.examples(self.split).dataset
        return "readout" in rows.column_names and len(rows) > 0 and rows[0]["readout"] == TokenReadout.name

    @cached_property
    def tokens(self) -> TokenNames:
        """The tokens of the model's vocabulary, by model/tokenizer.json."""
        return TokenNames(self.path / "model" / "tokenizer.json")

    @cached_property
    def model_config(self) -> dict[str, Any]:
        """model/config.json; empty where the run keeps no model."""
        path = self.path / "model" / "config.json"
        return _mapping(_parsed(path), path) if path.exists() else {}

    @property
    def splits(self) -> list[str]:
        """The splits whose examples the run has."""
        return [name for name in ("train", "validation", "test") if (self.path / "examples" / name).is_dir()]

    @cached_property
    def split(self) -> str:
        """The split the page explains: `attribute_split`, else the first of test, validation, train with scores."""
        wanted = self.config.get("attribute_split")
        if isinstance(wanted, str) and wanted in _EXPLAINED and (self.path / "examples" / wanted).is_dir():
            return wanted
        for name in _EXPLAINED:
            if any((folder / name).is_dir() for folder in self._score_folders()):
                return name
        for name in _EXPLAINED:
            if (self.path / "examples" / name).is_dir():
                return name
        raise UserError(f"{self.path / 'examples'} holds no split; expected one of {', '.join(_EXPLAINED)}: {REMAKE}.")

    def examples(self, split: str) -> Rows:
        """examples/<split>."""
        return self._rows(self.path / "examples" / split, _EXAMPLE_COLUMNS)

    def text_columns(self, split: str) -> list[str]:
        """The columns of texts and of lists of texts, in the order of the file; what the run wrote is none of them."""
        dataset = self.examples(split).dataset
        return [
            name
            for name, feature in dataset.features.items()
            if getattr(getattr(feature, "feature", feature), "dtype", "") in ("string", "large_string")
            and name not in ("readout", *SPELLED, *PLANTS)
        ]

    @cached_property
    def scores(self) -> list[ScoreSet]:
        """Every method's scores on `split`, real methods before controls, else in the config's order."""
        configured = self.config.get("method")
        order = [str(name) for name in configured] if isinstance(configured, Mapping) else []
        names = sorted({self._method_of(folder) for folder in self._score_folders()})
        names.sort(key=lambda name: order.index(name) if name in order else len(order))
        found = [scores for scores in map(self._score_set, names) if scores is not None]
        return sorted(found, key=lambda scores: scores.control)

    @cached_property
    def figures(self) -> list[Path]:
        """figures/*.png by name."""
        return self._named_now(sorted((self.path / "figures").glob("*.png")))

    @cached_property
    def tables(self) -> dict[str, tuple[list[str], list[list[str]]]]:
        """tables/*.csv: name → header and rows; those of 0.1.0 by their names of now."""
        tables = {}
        for path in self._named_now(sorted((self.path / "tables").glob("*.csv"))):
            header, lines = read_csv(path)
            tables[current_output(path.stem)] = (header, [[unprotect(cell) for cell in cells] for _, cells in lines])
        return tables

    def _named_now(self, paths: Sequence[Path]) -> list[Path]:
        """Files without those of a former name beside which the same of now is there."""
        there = {path.stem for path in paths}
        return [path for path in paths if (now := current_output(path.stem)) == path.stem or now not in there]

    def _score_folders(self) -> list[Path]:
        """Folders that hold the splits of one method and seed."""
        names = [folder for folder in sorted((self.path / "scores").glob("*")) if folder.is_dir()]
        seeds = {folder: [seed for seed in folder.glob("seed*") if seed.is_dir()] for folder in names}
        return [leaf for folder in names for leaf in (seeds[folder] or [folder])]

    def _method_of(self, folder: Path) -> str:
        return folder.relative_to(self.path / "scores").parts[0]

    def _score_set(self, name: str) -> ScoreSet | None:
        by_seed: dict[int | None, Path] = {}
        for folder in self._score_folders():
            if self._method_of(folder) == name and (folder / self.split).is_dir():
                digits = folder.name.removeprefix("seed")
                by_seed[int(digits) if folder.parent.name == name and digits.isdigit() else None] = folder
        if not by_seed:
            return None
        seeds = tuple(sorted(seed for seed in by_seed if seed is not None))
        seed = seeds[0] if seeds else None
        folder = by_seed[seed]
        rows = self._rows(folder / self.split, ("index",))
        there = rows.dataset.column_names
        kind: ScoreKind = "neuron" if "top_index" not in there else "unit" if "contribution" in there else "instance"
        self._rows(folder / self.split, _COLUMNS[kind])
        summary = None
        if (folder / "train_summary").is_dir():
            summary = self._rows(folder / "train_summary", _SUMMARY_COLUMNS)
        return ScoreSet(name, kind, rows, self.method_settings(folder, name), seed, seeds, summary)

    def method_settings(self, folder: Path, name: str) -> dict[str, Any]:
        """method.yaml, beside the splits or, for several seeds, in the method's folder."""
        beside = folder / "method.yaml"
        path = beside if beside.exists() else self.path / "scores" / name / "method.yaml"
        settings = _mapping(_parsed(path), path)
        require_known_format(path, settings, METHOD_FORMAT)
        return settings

    def _rows(self, path: Path, columns: Sequence[str]) -> Rows:
        if path not in self._opened:
            if not path.is_dir():
                raise UserError(
                    f"{path} is missing; expected a dataset with the columns {', '.join(columns)}: {REMAKE}."
                )
            try:
                self._opened[path] = Rows(path, load_from_disk(str(path)))
            except (OSError, ValueError, KeyError, TypeError) as error:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise UserError(f"{path} cannot be read ({reason}); expected a dataset: {REMAKE}.") from None
        rows = self._opened[path]
        missing = [name for name in columns if name not in rows.dataset.column_names]
        if missing:
            raise UserError(
                f"{path} has no column {', '.join(missing)} but {', '.join(rows.dataset.column_names)}; "
                f"expected {', '.join(columns)}: {REMAKE}."
            )
        return rows


def _parsed(path: Path) -> Any:
    try:
        text = path.read_text(encoding="utf-8")
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except FileNotFoundError:
        raise UserError(f"{path} is missing; expected it among the run's files: {REMAKE}.") from None
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        kind = path.suffix.lstrip(".").upper()
        reason = str(error).splitlines()[0]
        raise UserError(f"{path} cannot be read ({reason}); expected {kind}: {REMAKE}.") from None


def _mapping(value: Any, path: Path) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{path} holds {type(value).__name__}; expected names with values: {REMAKE}.")
    return value


def _list(path: Path) -> list[Any]:
    """A file of sentences, which is absent where there are none."""
    found = _parsed(path) if path.exists() else []
    if not isinstance(found, list):
        raise UserError(f"{path} holds {type(found).__name__}; expected a list of sentences: {REMAKE}.")
    return found
