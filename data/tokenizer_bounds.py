"""Tokenizers that make texts many times longer than they are: told from their own description before a text is read."""

from __future__ import annotations

import json
from typing import Any

from twinlens.attribution.errors import UserError

MOST_GROWTH = 100
"""Times that a text may grow; Unicode's own rules make at most 18 characters of one."""
MOST_ADDED = 1000
"""Characters or tokens put before, between or behind."""


def refuse_growing(tokenizer: Any) -> None:
    """Refuse a tokenizer whose rules may make a text more than `MOST_GROWTH` times longer.

    Raises:
        UserError: naming the factor.
    """
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return
    described = json.loads(backend.to_str())
    described.pop("model", None)  # pieces of what is there: the vocabulary makes no text longer
    described.pop("added_tokens", None)
    rules = [rule for part in ("normalizer", "pre_tokenizer") for rule in _rules(described.get(part))]
    growth, added = 1.0, 0
    for rule in rules:
        growth *= _growth(rule)
        added += len(str(rule.get("prepend") or ""))
    added += max(
        (len(rule.get(name) or ()) for rule in _rules(described.get("post_processor")) for name in ("single", "pair")),
        default=0,
    )
    if growth > MOST_GROWTH or added > MOST_ADDED:
        what = f"{growth:.3g} times as long" if growth > MOST_GROWTH else f"longer by {added} characters or tokens"
        raise UserError(
            f"The tokenizer's own rules (tokenizer.json) make a text up to {what}, expected at most {MOST_GROWTH} "
            f"times and {MOST_ADDED} more: use the tokenizer that the model was trained with."
        )


def _rules(described: Any) -> list[dict[str, Any]]:
    """All rules of a part of a tokenizer, those of sequences one by one."""
    if not isinstance(described, dict):
        return []
    nested = [part for name in ("normalizers", "pretokenizers", "processors") for part in described.get(name) or ()]
    return [described, *(rule for part in nested for rule in _rules(part))]


def _growth(rule: dict[str, Any]) -> float:
    """How many times longer a rule may make a text."""
    if rule.get("type") != "Replace":
        return 1.0
    pattern = rule.get("pattern") or {}
    replaced = pattern.get("String") if isinstance(pattern, dict) else None
    # a regular expression may match at single characters and, like an empty string, between them
    shortest = len(replaced) if replaced else 0.5
    return max(1.0, len(str(rule.get("content") or "")) / shortest)
