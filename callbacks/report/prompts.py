"""Prompts of a run as the page shows them: log-probability by layer, heads by position, neurons with their words.

Made of the rows that `evaluation=prompt` leaves in results.csv; tokens are read back from the examples.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from tokenizers import Tokenizer

from twinlens.attribution.errors import UserError
from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.run_files import RunFiles

EVALUATION = "prompt"
KINDS = {
    "ffn_value": "FFN value neurons",
    "attention_value": "attention value neurons",
    "query": "query neurons",
}


def is_of_prompt(row: Row) -> bool:
    """Whether a row of results.csv is shown with its prompt instead of in a table."""
    return row["evaluation"] == EVALUATION


def prompts(run: RunFiles) -> list[dict[str, Any]]:
    """Every prompt that `evaluation=prompt` looked into; none where it did not run.

    `log_prob` is that of the target after each layer, [layers], in nats: the final one less what later layers add.

    Raises:
        UserError: the run's tokenizer is damaged.
    """
    rows = [row for row in run.results if is_of_prompt(row)]
    tokenizer = _tokenizer(run) if rows else None
    return [
        _prompt(run, tokenizer, group, [row for row in rows if str(row["group"]) == group])
        for group in dict.fromkeys(str(row["group"]) for row in rows)
    ]


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


def _prompt(run: RunFiles, tokenizer: Tokenizer | None, group: str, rows: Sequence[Row]) -> dict[str, Any]:
    of: dict[str, list[Row]] = {}
    for row in rows:
        of.setdefault(str(row["metric"]), []).append(row)
    (final,) = of["prompt_logp"]
    increase = {str(row["reference_group"]): _value(row) for row in of["layer_increase"]}
    layers = range(sum(name.startswith("f") for name in increase))
    added = [increase[f"a{layer}"] + increase[f"f{layer}"] for layer in layers]
    after = list(accumulate(reversed(added[1:]), initial=0.0))[::-1]
    words: dict[tuple[str, str], list[str]] = {}
    for row in of.get("vocabulary_token", []):
        name, _, word = str(row["reference_group"]).partition(" ")
        words.setdefault((str(row["method"]), name), []).append(word)
    heads: dict[str, list[float]] = {}
    for row in of.get("head_position", []):
        heads.setdefault(str(row["reference_group"]), []).append(_value(row))
    length = max(map(len, heads.values()), default=0)
    return {
        "target": str(final["reference_group"] or ""),
        "tokens": _tokens(run, tokenizer, group, length),
        "log_prob": [_value(final) - later for later in after],
        "attention": [increase[f"a{layer}"] for layer in layers],
        "ffn": [increase[f"f{layer}"] for layer in layers],
        "heads": [[str(row["reference_group"]), _value(row)] for row in of["head_increase"]],
        "positions": [[name, values] for name, values in heads.items()],
        "neurons": [
            {
                "title": title,
                "listed": [
                    [name := str(row["reference_group"]), _value(row), words.get((kind, name.partition("@")[0]), [])]
                    for metric in ("value_neuron", "query_neuron")
                    for row in of.get(metric, [])
                    if row["method"] == kind
                ],
            }
            for kind, title in KINDS.items()
        ],
    }


def _tokens(run: RunFiles, tokenizer: Tokenizer | None, group: str, length: int) -> list[str]:
    """The prompt's last `length` tokens as they are written, numbers where the run keeps no tokenizer."""
    rows = run.examples(run.split).dataset
    place = int(group) if group.isdigit() else -1
    if tokenizer is not None and 0 <= place < len(rows) and "input_ids" in rows.column_names:
        ids = rows[place]["input_ids"][-length:] if length else []
        if len(ids) == length and all(isinstance(one, int) for one in ids):
            return [tokenizer.decode([one], skip_special_tokens=False) for one in ids]
    return [f"token {number}" for number in range(length)]


def _tokenizer(run: RunFiles) -> Tokenizer | None:
    path = run.path / "model" / "tokenizer.json"
    if not path.is_file():
        return None
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        raise UserError(
            f"{path} cannot be read ({error}); expected a tokenizer: make it again with overwrite=true."
        ) from None


def _value(row: Row) -> float:
    value = row["value"]
    return float(value) if isinstance(value, int | float) else float("nan")
