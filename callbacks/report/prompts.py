"""Prompts of a run as the page shows them: log-probability by layer, heads by position, neurons with their words.

Made of the rows that `evaluation=prompt` leaves in results.csv, and of the record of edits that it leaves beside them
(`prompt_record.py`); tokens are read back from the examples. Of a completion every token has a step of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import isfinite
from typing import Any

from twinlens.callbacks.report.listed_units import Address
from twinlens.callbacks.report.prompt_edits import Edits, read_edits
from twinlens.callbacks.results.columns import Row, value_of
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.results.token_names import Named, TokenNames

EVALUATION = "prompt"
KINDS = {
    "ffn_value": "FFN value neurons",
    "attention_value": "Attention value neurons",
    "query": "Query neurons",
}


def is_of_prompt(row: Row) -> bool:
    """Whether a row of results.csv is shown with its prompt instead of in a table."""
    return row["evaluation"] == EVALUATION


def prompts(run: RunFiles) -> list[dict[str, Any]]:
    """Every prompt that `evaluation=prompt` looked into; none where it did not run.

    Each has its `index`, the tokens of its `completion` (empty where a next token was explained), and `steps`, one for
    each token that was taken apart. A step's `log_prob` is that of the target after each layer, [layers], in nats: the
    final one less what later layers add.

    Raises:
        UserError: the run's tokenizer or its record of edits is damaged.
    """
    by_group: dict[str, list[Row]] = {}
    for row in run.results:
        if is_of_prompt(row):
            by_group.setdefault(str(row["group"]), []).append(row)
    edits = read_edits(run.path) if by_group else {}
    found: dict[int, dict[str, Any]] = {}
    for group, rows in by_group.items():
        index, token = (int(part) if part.isdigit() else 0 for part in [*group.split("."), "0"][:2])
        example = _example(run, index)
        completion = run.tokens.named(example.get("answer_ids") or []) if _whole(by_group, index) else []
        one = found.setdefault(index, {"index": index, "completion": completion, "steps": []})
        one["steps"].append(_step(run.tokens, example, token, rows, edits.get((index, token))))
    return [_finite(one) for one in found.values()]


def words_of_units(results: Sequence[Row]) -> dict[str, list[str]]:
    """Address of an FFN neuron → the outputs that its value raises most, best first, where the run has them."""
    found: dict[str, list[str]] = {}
    for row in results:
        if row["metric"] == "vocabulary_token":
            name, _, word = str(row["reference_group"]).partition(" ")
            if name.startswith("f"):
                words = found.setdefault(f"ffn.{name[1:]}", [])
                words += [word] if word not in words else []
    return found


def listed_neurons(found: Sequence[Mapping[str, Any]]) -> list[Address]:
    """Addresses of the FFN neurons that prompts list, each once; those of experts have no number of their own here."""
    names = {
        name: None
        for prompt in found
        for step in prompt["steps"]
        for kind in step["neurons"]
        for name, *_ in kind["listed"]
        if name.startswith("f") and name.count(".") == 1
    }
    places = [name[1:].split(".") for name in names]
    return [("neuron", "ffn", "value", int(layer), int(unit), unit) for layer, unit in places]


def _example(run: RunFiles, index: int) -> Mapping[str, Any]:
    return run.examples(run.split).rows([index]).get(index, {})


def _whole(groups: Mapping[str, Any], index: int) -> bool:
    """Whether more than one token of an example was taken apart."""
    return f"{index}.1" in groups


def _step(
    names: TokenNames, example: Mapping[str, Any], token: int, rows: Sequence[Row], edits: Edits | None
) -> dict[str, Any]:
    of: dict[str, list[Row]] = {}
    for row in rows:
        of.setdefault(str(row["metric"]), []).append(row)
    (final,) = of["prompt_logp"]
    increase = {str(row["reference_group"]): value_of(row) for row in of["layer_increase"]}
    layers = range(sum(name.startswith("f") for name in increase))
    added = [increase[f"a{layer}"] + increase[f"f{layer}"] for layer in layers]
    after = list(accumulate(reversed(added[1:]), initial=0.0))[::-1]
    words: dict[tuple[str, str], list[str]] = {}
    for row in of.get("vocabulary_token", []):
        name, _, word = str(row["reference_group"]).partition(" ")
        words.setdefault((str(row["method"]), name), []).append(word)
    heads: dict[str, list[float]] = {}
    for row in of.get("head_position", []):
        heads.setdefault(str(row["reference_group"]), []).append(value_of(row))
    length = max(map(len, heads.values()), default=0)
    return {
        "token": token,
        "target": str(final["reference_group"] or ""),
        "id": -1 if edits is None else edits.target,
        "tokens": _tokens(names, example, token, length),
        "log_prob": [value_of(final) - later for later in after],
        "attention": [increase[f"a{layer}"] for layer in layers],
        "ffn": [increase[f"f{layer}"] for layer in layers],
        "heads": [[str(row["reference_group"]), value_of(row)] for row in of["head_increase"]],
        "positions": [[name, values] for name, values in heads.items()],
        "others": [] if edits is None else edits.others,
        "factors": [] if edits is None else edits.factors,
        "neurons": [
            {
                "title": title,
                "listed": [
                    [
                        name := str(row["reference_group"]),
                        value_of(row),
                        words.get((kind, name.partition("@")[0]), []),
                        [] if edits is None else edits.of(kind, name),
                    ]
                    for metric in ("value_neuron", "query_neuron")
                    for row in of.get(metric, [])
                    if row["method"] == kind
                ],
            }
            for kind, title in KINDS.items()
        ],
    }


def _tokens(names: TokenNames, example: Mapping[str, Any], token: int, length: int) -> list[Named]:
    """The last `length` tokens before the explained one as they are written, numbered where they cannot be."""
    given = [*(example.get("input_ids") or []), *(example.get("answer_ids") or [])[:token]]
    ids = given[-length:] if length else []
    if len(ids) == length and all(isinstance(one, int) for one in ids) and names.readable:
        return names.named(ids)
    return [(f"token {number}", -1) for number in range(length)]


def _finite(value: Any) -> Any:
    """The same with None for what is no finite number, which JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not isfinite(value) else value
