"""A prompt's view as text for the terminal."""

from __future__ import annotations

from torch import Tensor

from twinlens.attribution.evaluation.neuron_level.sentences import Prompts
from twinlens.attribution.evaluation.neuron_level.shared_neurons import neuron_name, neuron_tokens
from twinlens.attribution.residual_protocol import ResidualModel

_BAR = 24
_SHADES = " ·░▒▓█"
_TITLES = {
    "ffn_value": "FFN value neurons",
    "attention_value": "attention value neurons",
    "query": "query neurons",
}


def best_heads(increase: Tensor, top: int) -> list[tuple[int, int]]:
    """(layer, head) of the `top` heads, best first; `increase` [layers, heads] in nats."""
    best = increase.flatten().sort(descending=True, stable=True).indices[:top].tolist()
    return [(head // increase.shape[1], head % increase.shape[1]) for head in best]


def names_of(model: ResidualModel, numbers: list[int], positions: list[int]) -> list[str]:
    """Names of neurons, attention neurons with their token's number: `a3.1.5@4`."""
    width = model.n_neurons + model.n_heads * model.head_dim
    named = [neuron_name(model, *divmod(number, width)) for number in numbers]
    return [name if at < 0 else f"{name}@{at}" for name, at in zip(named, positions, strict=True)]


def sentence_text(one: dict[str, Tensor], prompts: Prompts, top: int, n_tokens: int) -> str:
    """Layer bars, a map of the heads, the `top` heads by position, neurons with `n_tokens` tokens each.

    Args:
        one: answers of `prompt_view.PromptView` for one sentence.
    """
    length = min(int(one["length"]), len(one["token"]))
    tokens = [prompts.token(token) for token in one["token"][:length].tolist()]
    target, probability = prompts.token(int(one["target"])), float(one["log_prob"].exp())
    lines = [f"{'|'.join(tokens)}  →  {target!r}, probability {probability:.3f}"]
    lines += ["", "layers: increase of the log-probability (nats)", *_bars(one)]
    lines += ["", "heads: a column per head, darker is more, - lowers it", *_map(one["head"])]
    lines += ["", "heads by position: increase", *_positions(one, tokens, top)]
    for kind, title in _TITLES.items():
        lines += ["", f"{title} (layer.unit; increase; tokens)", *_neurons(one, prompts, kind, n_tokens)]
    return "\n".join(lines)


def _bars(one: dict[str, Tensor]) -> list[str]:
    attention, ffn = one["attention"].tolist(), one["ffn"].tolist()
    largest = max(map(abs, [*attention, *ffn])) or 1.0

    def bar(value: float) -> str:
        return ("█" if value >= 0 else "░") * round(_BAR * abs(value) / largest)

    return [
        f"  {layer:>3}  a {a:>7.3f} {bar(a):<{_BAR}}  f {f:>7.3f} {bar(f)}".rstrip()
        for layer, (a, f) in enumerate(zip(attention, ffn, strict=True))
    ]


def _map(head: Tensor) -> list[str]:
    largest = float(head.abs().max()) or 1.0

    def shade(value: float) -> str:
        if value < -0.1 * largest:
            return "-"
        return _SHADES[min(len(_SHADES) - 1, round(max(value, 0.0) / largest * (len(_SHADES) - 1)))]

    return [f"  {layer:>3}  {''.join(shade(value) for value in row)}" for layer, row in enumerate(head.tolist())]


def _positions(one: dict[str, Tensor], tokens: list[str], top: int) -> list[str]:
    width = max(7, *(len(token.strip()) for token in tokens)) + 1
    lines = ["  " + "head".ljust(8) + "".join(token.strip().rjust(width) for token in tokens)]
    for (layer, head), values in zip(best_heads(one["head"], top), one["head_position"].tolist(), strict=True):
        values = values[: len(tokens)]
        lines.append("  " + f"a{layer}.{head}".ljust(8) + "".join(f"{value:>{width}.3f}" for value in values))
    return lines


def _neurons(one: dict[str, Tensor], prompts: Prompts, kind: str, n_tokens: int) -> list[str]:
    numbers, positions = one[f"{kind}_number"].tolist(), one[f"{kind}_position"].tolist()
    names = names_of(prompts.model, numbers, positions)
    lines = []
    for name, number, score in zip(names, numbers, one[f"{kind}_score"].tolist(), strict=True):
        found = neuron_tokens(prompts, [number], n_tokens, "", kind)
        words = ", ".join(row.reference_group.partition(" ")[2].strip() for row in found)
        lines.append(f"  {name:<12} {score:>8.4f}  {words}")
    return lines
