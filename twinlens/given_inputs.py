"""Inputs that a caller of `explain` passes: what kind of model it is, and its texts as the files of a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.given_rows import LABEL, Row, by_number, label_names, rows_of, text_columns, write_table, write_texts
from twinlens.hosted_runs import override
from twinlens.models.given_models import HOOKS
from twinlens.value_words import kind_in_words

CLASSIFIER = "ForSequenceClassification"
LANGUAGE_MODELS = ("ForCausalLM", "LMHeadModel")


def kind_of(model: Any) -> str:
    """`classifier` or `language model`, by the name of the class.

    Raises:
        UserError: neither.
    """
    if isinstance(model, str | Path):
        from twinlens.models.backbone import load_config

        names = load_config(str(model)).architectures or []
    else:
        from transformers import PreTrainedModel

        if not isinstance(model, PreTrainedModel):
            if isinstance(inner := getattr(model, "module", None), PreTrainedModel):
                raise UserError(
                    f"the model is {kind_in_words(model)} around {kind_in_words(inner)}; expected the one inside, "
                    "which is read on one device: pass model.module."
                )
            raise UserError(
                f"the model is {kind_in_words(model)}; expected a model of transformers or the folder of one: pass "
                "that (of an adapter merge_and_unload(), or its folder), or use twinlens.Task for a module of your own."
            )
        names = names_of(type(model))
    if any(CLASSIFIER in name for name in names):
        return "classifier"
    if any(name.endswith(LANGUAGE_MODELS) for name in names):
        return "language model"
    raise UserError(
        f"the model is a {names[0] if names else 'model without a head'}; expected …ForCausalLM or …{CLASSIFIER}, "
        "which have a prediction to explain: load it with AutoModelForCausalLM or AutoModelForSequenceClassification."
    )


def at_home(given: Any) -> Any:
    """A path below `~` as it is meant; anything else as it is."""
    below = isinstance(given, str | Path) and str(given).startswith("~") and "\n" not in str(given)
    return str(Path(given).expanduser()) if below else given


def names_of(kind: type) -> list[str]:
    """Names of a model's class: first that by which its kind is known, of the class itself or one that it extends."""
    names = [each.__name__ for each in kind.__mro__]
    known = [name for name in names if CLASSIFIER in name or name.endswith(LANGUAGE_MODELS)]
    return [*known[:1], *names[:1]]


def require_tokenizer(tokenizer: Any, given: bool) -> None:
    """Refuse a model in memory without a tokenizer, and what is none.

    Args:
        tokenizer: None: that of the folder.
        given: whether the model is in memory.

    Raises:
        UserError: naming what to pass.
    """
    from transformers import PreTrainedTokenizerBase

    if tokenizer is None and given:
        raise UserError(
            "explain was given a model without its tokenizer; expected both, or the folder that holds both: write "
            "twinlens.explain(model, tokenizer, texts)."
        )
    if tokenizer is not None and not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise UserError(
            f"the tokenizer is {kind_in_words(tokenizer)}; expected one of transformers: pass "
            "AutoTokenizer.from_pretrained(folder)."
        )


def text_data(
    model: Any, texts: Any, train: Any, inputs: Path, generate: int, explain_against: Any
) -> tuple[list[str], list[str]]:
    """Files and settings of data=texts, and what the caller may not expect."""
    queries = rows_of(texts, "texts")
    file = write_texts(inputs / "queries.jsonl", queries, is_query=True)
    found, notes = ["data=texts", override("data.queries", file)], []
    if not all(row.get("completion") for row in queries):
        found.append(override("data.generate", generate))
    if explain_against is None and (n := sum(1 for row in queries if row.get("foil"))):
        have = "has" if n == 1 else "have"
        notes.append(f"{n} of the texts {have} a foil, which nothing is explained against: say explain_against='foil'")
    if train is not None:
        place = str(train)
        if not isinstance(train, str | Path):
            place = write_texts(inputs / "train.jsonl", rows_of(train, "train"), is_query=False)
        elif not place.strip() or (len(place.split()) > 1 and not Path(place).exists()):
            raise UserError(
                f"train={place!r:.60} is no file and no folder; expected the place of texts, or the texts: pass one "
                "text as train=['one text']."
            )
        found.append(override("data.train", place))
    return found, notes


def classifier_data(
    model: Any, texts: Any, train: Any, inputs: Path, generate: int, explain_against: Any
) -> tuple[list[str], list[str]]:
    """Files and settings of data=table, and what the caller may not expect."""
    if isinstance(model, str | Path):
        from twinlens.models.backbone import load_config

        config = load_config(str(model))
    else:
        config = model.config
    classes = [str(name) for _, name in sorted((config.id2label or {}).items())]
    queries = rows_of(texts, "texts")
    columns = text_columns(queries)
    path = {
        "test": write_table(
            inputs / "test.jsonl", queries, columns, classes, "texts", _numbers(texts, classes, "texts")
        )
    }
    if train is not None:
        rows = rows_of(train, "train")
        path["train"] = write_table(
            inputs / "train.jsonl", rows, columns, classes, "train", _numbers(train, classes, "train")
        )
        if _labelled(queries) and not _labelled(rows):
            raise UserError(
                "no row of train has a label, and texts have; expected both or neither: add the key label to each row "
                "of train, or take it from texts."
            )
        queries = [*queries, *rows]
    labelled = _labelled(queries)
    label = override("data.label", LABEL if labelled else None)
    return ["data=table", override("data.path", path), override("data.text", columns), label], []


def _numbers(given: Any, classes: Sequence[str], name: str) -> list[str]:
    return by_number(label_names(given), classes, name)


def _labelled(rows: Sequence[Row]) -> bool:
    return any(row.get(LABEL) is not None for row in rows)


def write_config(model: Any, where: Path) -> None:
    """Configuration of the model, with the class that it is."""
    where.mkdir(parents=True, exist_ok=True)
    before = model.config.architectures
    try:
        model.config.architectures = names_of(type(model))[:1]
        model.config.save_pretrained(where)
    finally:
        model.config.architectures = before


def told_hooks(model: Any) -> list[str]:
    """A sentence on hooks that the twin does not have."""
    n = sum(len(vars(part)[name]) for part in model.modules() for name in HOOKS[:2] if name in vars(part))
    said = "1 hook of the model was" if n == 1 else f"{n} hooks of the model were"
    return [f"{said} left out: the model is explained as it is without hooks"] if n else []


def in_their_words(said: str, inputs: Path) -> str:
    """A message in which files that the caller did not write are the arguments that they were made of.

    Args:
        said: the message.
        inputs: folder of the files.
    """
    for file, name in (("train.jsonl", "train"), ("queries.jsonl", "texts"), ("test.jsonl", "texts")):
        path = rf"(?:{re.escape(inputs.as_posix())}/|(?<![/\w])){re.escape(file)}"
        said = re.sub(f"{path} row (\\d+)", rf"{name}[\1]", said)
        for line in set(re.findall(f"{path}:(\\d+)", said)):
            said = re.sub(f"{path}:{line}(?!\\d)", f"{name}[{int(line) - 1}]", said)
        said = re.sub(path, name, said)
    for split, name in (("train", "train"), ("test", "texts")):
        said = re.sub(rf"Row (\d+) of the source of the {split} split of data=\w+", rf"{name}[\1]", said)
    model = re.escape((inputs / "model").as_posix())
    if re.search(model, said):
        said = re.sub(f"(model\\.path=)?{model}", "the model", said).replace(" in config.json", " of its config")
    return said
