"""One prompt taken apart, as the second paper's notebooks show it: layers, heads, positions, value, query neurons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from twinlens.attribution.evaluation.neuron_level.prompt_text import best_heads, names_of, sentence_text
from twinlens.attribution.evaluation.neuron_level.reads import Longest, Reads
from twinlens.attribution.evaluation.neuron_level.sentences import Prompts, Sentences, limited, require_counts
from twinlens.attribution.evaluation.neuron_level.shared_neurons import neuron_tokens
from twinlens.attribution.evaluation.neuron_level.value_neurons import attention_values, ffn_values, query_scores
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.bounded_search import TopUnits
from twinlens.attribution.neuron.logprob_increase import head_increases, head_position_increases, layer_increases
from twinlens.attribution.neuron.part_scores import HeadScore, LayerScore
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel

KINDS = ("ffn_value", "attention_value", "query")


class PromptView:
    """Increases (nats) at every granularity for the first sentences, and the tokens that the best neurons stand for.

    Args:
        sentences: shown ones, from the first on.
        top: heads and neurons of each kind that are listed.
        tokens: tokens of each neuron.
        attention: attention value neurons at a position whose query neurons are taken.
        largest_share: on small models at most this share of a site's neurons.
        positions: tokens of a sentence that are shown, the last ones of a longer one.
        mode: `corrected` or `notebook`, see `twinlens.attribution.neuron.query`.

    Raises:
        UserError: a count of nothing.

    Example:
        >>> from twinlens.attribution.evaluation.neuron_level.prompt_view import PromptView
        >>> from twinlens.attribution.example_models import example_sentences
        >>> sentences, prompts = example_sentences()
        >>> view = PromptView(top=1, tokens=2, largest_share=0.5)
        >>> answers = view.answers(sentences)
        >>> rows = view.evaluate(answers, prompts)
        >>> [(row.method, row.reference_group) for row in rows if row.metric == "value_neuron"]  # neuron, @ its token
        [('ffn_value', 'f1.3'), ('attention_value', 'a1.0.0@2')]
        >>> view.text(answers, prompts).splitlines()[0]
        "5|1|2|0  →  '1', probability 0.642"
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024neuron",)
    requires: ClassVar[Literal["neuron_level"]] = "neuron_level"

    def __init__(
        self,
        sentences: int = 1,
        top: int = 10,
        tokens: int = 10,
        attention: int = 200,
        largest_share: float = 0.05,
        positions: int = 64,
        mode: Mode = "corrected",
    ) -> None:
        counts = {"sentences": sentences, "top": top, "tokens": tokens, "attention": attention, "positions": positions}
        require_counts("prompt", **counts)
        self.sentences = sentences
        self.top = top
        self.tokens = tokens
        self.attention = attention
        self.largest_share = largest_share
        self.positions = positions
        self.mode: Mode = mode

    @property
    def longest(self) -> int:
        """Most value neurons whose keys are read."""
        return max(self.attention, self.top)

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """`attention`, `ffn` [batch, layers]; `head` [batch, layers, heads]; `head_position`, `head_attention` [batch,
        layers, heads, positions]; lists of neurons (`<kind>_number`, `_position`, `_score`, [batch, top]); `target`,
        `log_prob`, `length` and `token` ids [batch, positions]."""
        model, room = sentences.model, sentences.room
        states, readout = sentences.states(), sentences.readout(self.mode)
        attention, ffn = layer_increases(states, readout, room)
        assert states.attention is not None
        mask = sentences.batch["attention_mask"]
        by_position = head_position_increases(model, states, readout, room)
        top = ffn_values(sentences, self.mode, self.top)
        found = attention_values(sentences, self.mode, self.top)
        query = query_scores(sentences, self.mode, self.n_asked(model)).flatten(1)
        best = query.sort(dim=1, descending=True, stable=True)
        layer = best.indices[:, : self.top].div(model.n_neurons, rounding_mode="floor")
        width = model.n_neurons + model.n_heads * model.head_dim
        queries = layer * width + best.indices[:, : self.top] % model.n_neurons
        first = mask.argmax(1)
        return {
            "attention": attention,
            "ffn": ffn,
            "head": head_increases(model, states, readout, room),
            "head_position": self._aligned(by_position, sentences.batch),
            "head_attention": self._aligned(states.attention.float(), sentences.batch),
            **_listed("ffn_value", top, 0, width, self.top, first),
            **_listed("attention_value", found, model.n_neurons, width, self.top, first),
            "query_number": queries,
            "query_position": torch.full_like(queries, -1),
            "query_score": best.values[:, : self.top],
            "target": sentences.target,
            "log_prob": readout.log_prob(states.residual[:, -1].to(readout.dtype)),
            "length": mask.sum(1),
            "token": self._aligned(sentences.batch["input_ids"], sentences.batch),
        }

    def _aligned(self, values: Tensor, batch: Batch) -> Tensor:
        """[batch, …, tokens] with each sentence's tokens from column 0 on, `positions` columns, 0 behind them."""
        rows = []
        for row, mask in zip(values, batch["attention_mask"], strict=True):
            own = row[..., mask.bool()][..., -self.positions :]
            rows.append(pad(own, (0, self.positions - own.shape[-1])))
        return torch.stack(rows)

    def n_asked(self, model: ResidualModel) -> int:
        """Attention value neurons whose query neurons are taken on a model of this size."""
        return limited(self.attention, self.largest_share, model.n_layers * model.n_heads * model.head_dim)

    def reads(self, model: ResidualModel) -> Reads:
        """Value neurons of both sites, and query neurons."""
        n_asked, mode = self.n_asked(model), self.mode
        values: Longest = {("ffn", mode): self.top, ("attn", mode): max(n_asked, self.top)}
        return Reads(True, True, values, frozenset({(n_asked, mode)}))

    def operations(self, model: ResidualModel, tokens: int, forward: float, n_lists: int) -> float:
        """Every layer's, head's and position's distributions."""
        parts = (LayerScore(), HeadScore(), HeadScore(by_position=True))
        return sum(part.operations(model, tokens) for part in parts)

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """Rows per sentence (group: its number): `prompt_logp`, `layer_increase`, `head_increase`,
        `head_position` and `head_attention` (k: the token) of the best heads, `value_neuron` and `query_neuron`
        (k: place), `vocabulary_token` (method: value or query)."""
        found: list[Result] = []
        for number in range(min(self.sentences, len(answers["target"]))):
            one = {name: values[number] for name, values in answers.items()}
            found += self._sentence(one, prompts, str(number))
        return found

    def _sentence(self, one: dict[str, Tensor], prompts: Prompts, group: str) -> Iterator[Result]:
        target = prompts.token(int(one["target"]))
        yield Result("prompt_logp", float(one["log_prob"]), n=1, group=group, reference_group=target)
        for site, letter in (("attention", "a"), ("ffn", "f")):
            for layer, value in enumerate(one[site].tolist()):
                yield Result("layer_increase", value, group=group, reference_group=f"{letter}{layer}")
        for layer, heads in enumerate(one["head"].tolist()):
            for head, value in enumerate(heads):
                yield Result("head_increase", value, group=group, reference_group=f"a{layer}.{head}")
        for layer, head in best_heads(one["head"], self.top):
            for metric in ("head_position", "head_attention"):
                for k in range(min(int(one["length"]), self.positions)):
                    value = float(one[metric][layer, head, k])
                    yield Result(metric, value, k=k, group=group, reference_group=f"a{layer}.{head}")
        for kind in KINDS:
            role = "query" if kind == "query" else "value"
            numbers, places = one[f"{kind}_number"].tolist(), one[f"{kind}_position"].tolist()
            for k, (name, value) in enumerate(
                zip(names_of(prompts.model, numbers, places), one[f"{kind}_score"].tolist(), strict=True)
            ):
                yield Result(f"{role}_neuron", value, k=k + 1, group=group, method=kind, reference_group=name)
            yield from neuron_tokens(prompts, list(dict.fromkeys(numbers)), self.tokens, group, kind)

    def text(self, answers: dict[str, Tensor], prompts: Prompts) -> str:
        """Text for the terminal: layer bars, a map of the heads, heads by position, neurons with their tokens.

        Args:
            answers: of all sentences, from `answers`.
            prompts: all sentences.
        """
        shown = range(min(self.sentences, len(answers["target"])))
        return "\n\n".join(
            sentence_text({name: values[number] for name, values in answers.items()}, prompts, self.top, self.tokens)
            for number in shown
        )


def _listed(kind: str, top: TopUnits, offset: int, width: int, k: int, first: Tensor) -> dict[str, Tensor]:
    """The first k neurons of a list: numbers, tokens counted from the sentence's first, scores."""
    position = torch.where(top.position < 0, -1, top.position - first[:, None])
    number = top.layer.long() * width + top.unit.long() + offset
    return {
        f"{kind}_number": number[:, :k],
        f"{kind}_position": position[:, :k].long(),
        f"{kind}_score": top.score[:, :k],
    }
