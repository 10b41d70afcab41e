"""Model card of a run: front matter that a hub reads, what was run, its numbers with errors, limits, how to load."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import transformers
import yaml
from huggingface_hub import EvalResult, ModelCardData, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from twinlens.attribution.evaluation.parts import is_part
from twinlens.callbacks.report.sections import run_name, statement
from twinlens.callbacks.report.worth import verdicts
from twinlens.callbacks.results.columns import Row, is_control, with_setting
from twinlens.callbacks.results.formatting import format_number, format_row_value, metric_label
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.share.citations import cited, in_words
from twinlens.callbacks.share.escaping import prose, shown, table
from twinlens.callbacks.share.statements import stated
from twinlens.models.checkpoint_files import PROJECT, may_be_hub_id

OF_MODEL = ("accuracy", "macro_f1", "perplexity")
"""Metrics of the model itself."""
MAX_ROWS = 60
"""Rows of the table of attribution; results.csv has all."""
TASKS = {"classification": "text-classification", "choice": "multiple-choice", "token": "text-generation"}
"""Readout of the examples → the hub's name of the task."""
RECIPE = ("head", "learning_rate", "weight_decay", "schedule", "batch_size", "max_epochs", "dtype", "adapter")
"""Settings of the model that say how it was trained."""
NOT_SHOWN = ("paths.", "hydra.", "hydra/", "push", "store.", "report.", "name=", "tags=")
"""How overrides begin that say nothing of what was run."""
LOADED = """```python
from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForSequenceClassification.from_pretrained(FOLDER)
```

`FOLDER` is a copy of this repository, or its name. The form of the texts it was trained on stands in `config.json`
under `twinlens_input`, and twinlens reads it by itself:
`twinlens fit=false model=local model.path=FOLDER data=table data.path=FILE`."""
LOADED_OF_TOKENS = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(FOLDER)
model = AutoModelForCausalLM.from_pretrained(FOLDER)
```

`FOLDER` is a copy of this repository, or its name."""
OWN_HEAD = (
    "transformers has no class for this head on this type of model; twinlens reads it: "
    "`twinlens fit=false model=local model.path=FOLDER data=table data.path=FILE`, with a copy of this repository as "
    "`FOLDER`."
)
NOT_OURS = "The run used a model that was trained elsewhere; its weights are not part of what is shared here."
LIMITS = (
    "Scores speak of this model and these examples. Another seed gives other lists.",
    "A training instance that stands first made the prediction likelier by the method's own account. The tests above "
    "say how far that account holds.",
    "`report.html` and the lists quote texts of the data. Before you share them, see the licence in `data_card.md`.",
)


def model_card(run: RunFiles) -> str:
    """The card as Markdown with YAML front matter.

    Args:
        run: a finished run's files.

    Raises:
        UserError: a file of the run is missing or damaged (named).
    """
    name = f"{run_name(run, 'model')} on {run_name(run, 'data')}"
    parts = ["---", front_matter(run), "---", "", f"# {prose(name)}", "", prose(statement(run)), ""]
    parts += [*(f"- {prose(sentence)}" for sentence in verdicts(run.own_results)), ""]
    parts += ["## What was run", "", *what_was_run(run), "", "## Numbers", "", *numbers(run)]
    parts += ["## Limits", "", *(f"- {line}" for line in LIMITS), *(f"- {prose(said)}" for said in run.warnings), ""]
    parts += ["## How to load", "", how_to_load(run), "", "## Files", "", *files(run), ""]
    keys = cited(run.config)
    parts += ["## Citation", "", "`citations.bib` has these entries, of exactly what the run used:", ""]
    return "\n".join([*parts, *(f"- {prose(in_words(key))}" for key in keys), ""])


def front_matter(run: RunFiles) -> str:
    """What the hub reads of the card, as YAML without its fences."""
    model, data = (run.config.get(part) or {} for part in ("model", "data"))
    task = task_of(run)
    source = hub_dataset(data)
    licence = stated(model, "licence")
    results = [
        EvalResult(
            task_type=task,
            dataset_type=source or shown(run_name(run, "data")),
            dataset_name=shown(run_name(run, "data")),
            dataset_split=str(row["split"]),
            metric_type=str(row["metric"]),
            metric_value=float(str(row["value"])),
            metric_name=str(row["metric"]),
        )
        for row in of_model(run.own_results)
    ]
    card = ModelCardData(
        license=licence[0] if licence else None,
        base_model=base_model(model),
        datasets=[source] if source else None,
        metrics=list(dict.fromkeys(str(row["metric"]) for row in of_model(run.own_results))) or None,
        library_name="transformers",
        pipeline_tag=task,
        tags=["twinlens", "training-data-attribution", "interpretability"],
        model_name=shown(f"{run_name(run, 'model')} on {run_name(run, 'data')}") if results else None,
        eval_results=results or None,
    )
    return yaml.safe_dump(card.to_dict(), sort_keys=False, allow_unicode=True, width=1000).rstrip("\n")


def task_of(run: RunFiles) -> str:
    """The hub's name of what the model does."""
    examples = run.examples(run.split).dataset
    readout = examples[0].get("readout") if len(examples) else None
    return TASKS.get(str(readout), "text-classification")


def base_model(model: Mapping[str, Any]) -> str | None:
    """The checkpoint's name on the hub: one that the project names, or one that lies in the hub's cache here.

    A folder of the user's is nobody else's name, however it looks.
    """
    path = model.get("path")
    if not isinstance(path, str) or Path(path).exists() or not may_be_hub_id(path):
        return None
    known = bool(stated({**model, "name": ""}, "papers"))  # a paper that the path alone asks for
    try:
        fetched = isinstance(try_to_load_from_cache(path, "config.json"), str)
    except HFValidationError:  # no name that a hub gives: a folder that was there once
        fetched = False
    return path if known or fetched else None


def hub_dataset(data: Mapping[str, Any]) -> str | None:
    """The dataset repository that the rows were fetched from; None for files of the user's and generated rows."""
    return next(iter(stated(data, "hub_dataset")), None)


def of_model(rows: Sequence[Row]) -> list[Row]:
    """Rows of the model itself on whole splits, on a test split first."""
    own = [row for row in rows if not row["method"] and not row["group"] and row["metric"] in OF_MODEL]
    return sorted(own, key=lambda row: row["split"] != "test")


def what_was_run(run: RunFiles) -> Iterator[str]:
    """Base, recipe, seed and the command, one line each."""
    model = run.config.get("model") or {}
    fitted = run.config.get("fit", True) is not False
    if base := base_model(model):
        yield f"- Base: {prose(base)}"
    elif model.get("path") is None:
        yield "- Base: none, trained from scratch"
    elif str(model["path"]).startswith("models/") and (PROJECT / str(model["path"])).is_dir():
        yield f"- Base: {prose(model['path'])}, which twinlens ships"
    else:
        yield "- Base: a checkpoint of the user's own"
    if fitted:
        recipe = [f"{name.replace('_', ' ')} {prose(model[name])}" for name in RECIPE if model.get(name) is not None]
        yield f"- Trained here: {', '.join(recipe)}"
    yield f"- Seed: {prose(run.config.get('seed', ''))}"
    typed = [shown(word) for word in typed_settings(run)]
    yield f"- Command: {prose(shlex.join(['twinlens', *typed]))}"
    if keeps_weights(run) and not stated(model, "licence"):
        yield "- Licence: not known to twinlens; say it in the front matter before you make this public"


def typed_settings(run: RunFiles) -> list[str]:
    """What was typed, without places and names that are this machine's alone."""
    path = run.path / "overrides.yaml"
    found = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else []
    typed = [str(line) for line in found or [] if not str(line).lstrip("+").startswith(NOT_SHOWN)]
    return [_with_own_place(line) for line in typed]


def _with_own_place(line: str) -> str:
    key, _, typed = line.partition("=")
    value = typed.strip("'\"")
    place = key.rpartition(".")[2] in ("path", "tokenizer_path", "test_path") and "/" in value
    return f"{key}=DIR" if place and base_model({"path": value}) is None else line


def numbers(run: RunFiles) -> list[str]:
    """Tables of the model's own numbers and of those of its methods, each with its error."""
    lines: list[str] = []
    own = of_model(run.own_results)
    if own:
        rows = [(row["split"], metric_label(row), format_row_value(row), format_number(row["n"])) for row in own]
        lines += [*table(("split", "metric", "value", "examples"), rows), ""]
    others = [row for row in run.own_results if row["method"] and not is_part(str(row["group"] or ""))]
    cells = [
        (
            row["evaluation"],
            with_setting(str(row["method"]), row) + (" (control)" if is_control(row) else ""),
            metric_label(row),
            " ".join(str(row[name]) for name in ("group", "reference_group", "variant") if row.get(name)),
            format_row_value(row),
            format_number(row["n"]),
        )
        for row in others
    ]
    if cells:
        lines += [*table(("evaluation", "method", "metric", "of", "value", "examples"), cells[:MAX_ROWS]), ""]
    if len(cells) > MAX_ROWS:
        lines += [f"{len(cells) - MAX_ROWS} more rows are in `results.csv`.", ""]
    return lines or ["Nothing was measured.", ""]


def keeps_weights(run: RunFiles) -> bool:
    """Whether the run trained the weights that it keeps, which are then its own to share."""
    return run.config.get("fit", True) is not False and (run.path / "model" / "config.json").is_file()


def how_to_load(run: RunFiles) -> str:
    """Code that loads the weights, or why there are none."""
    if not keeps_weights(run):
        return NOT_OURS
    if not any(hasattr(transformers, str(name)) for name in run.model_config.get("architectures") or ()):
        return OWN_HEAD
    return LOADED_OF_TOKENS if task_of(run) == "text-generation" else LOADED


def files(run: RunFiles) -> list[str]:
    """What lies beside the card."""
    told = {
        "report.html": "every example, training instance and neuron; download it and open it in a browser",
        "results.csv": "every number, one a row; its columns are described in twinlens' docs/results.md",
    }
    there = [f"- [`{name}`]({name}): {what}" for name, what in told.items() if (run.path / name).is_file()]
    return [
        *there,
        "- [`data_card.md`](data_card.md): sizes, labels, licence, what was left out",
        "- [`citations.bib`](citations.bib)",
    ]
