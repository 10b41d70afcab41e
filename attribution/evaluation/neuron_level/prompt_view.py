"""One prompt taken apart, as the second paper's notebooks show it: layers, heads, positions, value, query neurons.

Of a completion every token is taken apart, each behind the ones that are given before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from twinlens.attribution.completions import Completions
from twinlens.attribution.evaluation.neuron_level.prompt_edits import (
    Recorded,
    group_of,
    record,
    recorded,
    require_edits,
)
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

    For the neurons that are listed it is recorded what the model says when each alone is set to a multiple of itself
    (`prompt_edits`): nothing is known of other neurons, nor of two at once.

    Args:
        sentences: shown ones, the first of the split.
        top: heads and neurons of each kind that are listed.
        tokens: tokens of each neuron.
        attention: attention value neurons at a position whose query neurons are taken.
        largest_share: on small models at most this share of a site's neurons.
        positions: tokens of a sentence that are shown, the last ones of a longer one.
        completion: tokens of a completion that are taken apart, the first ones of a longer one.
        edits: what a listed neuron is multiplied by, for the record; empty: nothing is recorded.
        others: outputs beside the target whose log-probabilities are recorded, the best ones.
        mode: `corrected` or `notebook`, see `twinlens.attribution.neuron.query`.

    Raises:
        UserError: a count of nothing, or an edit that is no number or changes nothing.

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
    of_completions: ClassVar[bool] = True

    def __init__(
        self,
        sentences: int = 1,
        top: int = 10,
        tokens: int = 10,
        attention: int = 200,
        largest_share: float = 0.05,
        positions: int = 64,
        completion: int = 8,
        edits: Sequence[float] = (0, 2, -1),
        others: int = 5,
        mode: Mode = "corrected",
    ) -> None:
        counts = {"sentences": sentences, "top": top, "tokens": tokens, "attention": attention, "positions": positions}
        require_counts("prompt", **counts, completion=completion, others=others)
        require_edits(edits)
        self.sentences = sentences
        self.top = top
        self.tokens = tokens
        self.attention = attention
        self.largest_share = largest_share
        self.positions = positions
        self.completion = completion
        self.edits = [float(factor) for factor in dict.fromkeys(edits)]
        self.others = others
        self.mode: Mode = mode

    @property
    def longest(self) -> int:
        """Most value neurons whose keys are read."""
        return max(self.attention, self.top)

    def answers(self, sentences: Sentences) -> dict[str, Tensor]:
        """Of every token that is taken apart, one of a next token, `completion` at most of a completion:

        `attention`, `ffn` [batch, tokens, layers]; `head` [batch, tokens, layers, heads]; `head_position`,
        `head_attention` [batch, tokens, top, positions] of the best heads; lists of neurons (`<kind>_number`,
        `_position`, `_score`, [batch, tokens, listed]); `target`, `log_prob`, `length` [batch, tokens] and `token`
        ids [batch, tokens, positions]; `other`, `other_log_prob`, `edited_log_prob`, … of the model as it is and
        edited. Edits and later tokens are those of the shown sentences alone, 0 for the others. `index` [batch].
        """
        index = sentences.batch["index"]
        shown = torch.nonzero(index < self.sentences)[:, 0]
        n = 1 if sentences.completions is None else self.completion
        found = {"index": index}
        for name, part in self._of_token(sentences, shown).items():
            found[name] = part.new_zeros(len(part), n, *part.shape[1:])
            found[name][:, 0] = part
        if sentences.completions is None or not len(shown):
            return found
        whole = replace(sentences, completions=None, reads=self.reads(sentences.model))
        own = Completions([sentences.completions.tokens[row] for row in shown.tolist()])
        batch = {name: part[shown] for name, part in sentences.batch.items()}
        for number, step in enumerate(own.steps(batch)):
            if 0 < number < n:
                one = replace(whole, batch=step.batch, target=step.batch["target"], kept={})
                rows = shown[step.rows]
                for name, part in self._of_token(one, torch.arange(len(rows), device=rows.device)).items():
                    found[name][rows, number] = part
        return found

    def _of_token(self, sentences: Sentences, edited: Tensor) -> dict[str, Tensor]:
        """What `answers` says of the next token, without the dimension of tokens.

        Args:
            edited: rows whose neurons are edited too, [edited].
        """
        model, room = sentences.model, sentences.room
        states, readout = sentences.states(), sentences.readout(self.mode)
        attention, ffn = layer_increases(states, readout, room)
        assert states.attention is not None
        mask = sentences.batch["attention_mask"]
        head = head_increases(model, states, readout, room)
        best = head.flatten(1).sort(dim=1, descending=True, stable=True).indices[:, : self.top]
        by_position = head_position_increases(model, states, readout, room).flatten(1, 2)
        attended = states.attention.float().flatten(1, 2)
        found = {
            "attention": attention,
            "ffn": ffn,
            "head": head,
            "head_position": self._aligned(_rows_of(by_position, best), sentences.batch),
            "head_attention": self._aligned(_rows_of(attended, best), sentences.batch),
            **self._lists(sentences, mask.argmax(1)),
            "target": sentences.target,
            "log_prob": readout.log_prob(states.residual[:, -1].to(readout.dtype)),
            "length": mask.sum(1),
            "token": self._aligned(sentences.batch["input_ids"], sentences.batch),
        }
        numbers = torch.cat([found[f"{kind}_number"] for kind in KINDS], 1)
        return {**found, **record(sentences, states.scores.float(), numbers, edited, self.edits, self.others)}

    def _lists(self, sentences: Sentences, first: Tensor) -> dict[str, Tensor]:
        """The best neurons of every kind; `first` [batch]: column of each sentence's first token."""
        model = sentences.model
        top = ffn_values(sentences, self.mode, self.top)
        values = attention_values(sentences, self.mode, self.top)
        query = query_scores(sentences, self.mode, self.n_asked(model)).flatten(1)
        best = query.sort(dim=1, descending=True, stable=True)
        layer = best.indices[:, : self.top].div(model.n_neurons, rounding_mode="floor")
        width = model.n_neurons + model.n_heads * model.head_dim
        queries = layer * width + best.indices[:, : self.top] % model.n_neurons
        return {
            **_listed("ffn_value", top, 0, width, self.top, first),
            **_listed("attention_value", values, model.n_neurons, width, self.top, first),
            "query_number": queries,
            "query_position": torch.full_like(queries, -1),
            "query_score": best.values[:, : self.top],
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
        """Every layer's, head's and position's distributions; edits and later tokens are of the shown ones alone."""
        parts = (LayerScore(), HeadScore(), HeadScore(by_position=True))
        return sum(part.operations(model, tokens) for part in parts)

    def operations_of_shown(self, forward: float, n_sentences: int, tokens: int) -> float:
        """A forward of every edit of every listed neuron, of all tokens that are taken apart.

        Args:
            forward: operations of one forward.
            n_sentences: of the split.
            tokens: of the longest completion; 1 where a next token is explained.
        """
        edits = len(KINDS) * self.top * len(self.edits)
        return forward * edits * min(self.sentences, n_sentences) * min(self.completion, tokens)

    def evaluate(self, answers: dict[str, Tensor], prompts: Prompts) -> list[Result]:
        """Rows per sentence (group: its number, and behind it .1, .2 … for a completion's further tokens):
        `prompt_logp`, `layer_increase`, `head_increase`, `head_position` and `head_attention` (k: the token) of the
        best heads, `value_neuron` and `query_neuron` (k: place), `vocabulary_token` (method: value or query)."""
        found: list[Result] = []
        for number, token, one in self._shown(answers):
            found += self._sentence(one, prompts, group_of(number, token))
        return found

    def recorded(self, answers: dict[str, Tensor], prompts: Prompts) -> Iterator[Recorded]:
        """Lines of the record of edits, one sentence and token after the other; none without `edits`.

        Args:
            answers: of all sentences, from `answers`.
            prompts: all sentences.
        """
        for number, token, one in self._shown(answers) if self.edits else ():
            names = [
                (kind, name)
                for kind in KINDS
                for name in names_of(prompts.model, one[f"{kind}_number"].tolist(), one[f"{kind}_position"].tolist())
            ]
            yield from recorded(one, number, names, self.edits, token)

    def _shown(self, answers: dict[str, Tensor]) -> Iterator[tuple[int, int, dict[str, Tensor]]]:
        """(number of the example, token, its answers) of all that is taken apart."""
        for row, number in enumerate(answers["index"].tolist()):
            own = {name: values[row] for name, values in answers.items() if name != "index"}
            for token in torch.nonzero(own["length"])[:, 0].tolist() if number < self.sentences else ():
                yield number, token, {name: values[token] for name, values in own.items()}

    def _sentence(self, one: dict[str, Tensor], prompts: Prompts, group: str) -> Iterator[Result]:
        target = prompts.token(int(one["target"]))
        yield Result("prompt_logp", float(one["log_prob"]), n=1, group=group, reference_group=target)
        for site, letter in (("attention", "a"), ("ffn", "f")):
            for layer, value in enumerate(one[site].tolist()):
                yield Result("layer_increase", value, group=group, reference_group=f"{letter}{layer}")
        for layer, heads in enumerate(one["head"].tolist()):
            for head, value in enumerate(heads):
                yield Result("head_increase", value, group=group, reference_group=f"a{layer}.{head}")
        for place, (layer, head) in enumerate(best_heads(one["head"], self.top)):
            for metric in ("head_position", "head_attention"):
                for k in range(min(int(one["length"]), self.positions)):
                    value = float(one[metric][place, k])
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

        Of a completion its first token is written out.

        Args:
            answers: of all sentences, from `answers`.
            prompts: all sentences.
        """
        shown = [one for _, token, one in self._shown(answers) if token == 0]
        return "\n\n".join(sentence_text(one, prompts, self.top, self.tokens) for one in shown)


def _rows_of(values: Tensor, rows: Tensor) -> Tensor:
    """[batch, all, tokens], rows [batch, some] → [batch, some, tokens]."""
    return values.gather(1, rows[..., None].expand(-1, -1, values.shape[-1]))


def _listed(kind: str, top: TopUnits, offset: int, width: int, k: int, first: Tensor) -> dict[str, Tensor]:
    """The first k neurons of a list: numbers, tokens counted from the sentence's first, scores."""
    position = torch.where(top.position < 0, -1, top.position - first[:, None])
    number = top.layer.long() * width + top.unit.long() + offset
    return {
        f"{kind}_number": number[:, :k],
        f"{kind}_position": position[:, :k].long(),
        f"{kind}_score": top.score[:, :k],
    }
