"""The nine scores of `static_scores` as a configured method: which neurons of either site carry the target."""

from __future__ import annotations

import copy
from typing import ClassVar, Literal

import torch

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Lens
from twinlens.attribution.neuron.bounded_search import UNIT_BLOCK, TopUnits, search_bytes
from twinlens.attribution.neuron.explained import Explained, all_scores, explain, score_parts
from twinlens.attribution.neuron.increase import Units, dense_bytes
from twinlens.attribution.neuron.logprob_increase import attention_units, ffn_units
from twinlens.attribution.neuron.protocol import ResidualMethod
from twinlens.attribution.neuron.ranking import ATTENTION, FFN, NeuronScores, TokenScores, without_absent
from twinlens.attribution.neuron.readout import Mode
from twinlens.attribution.neuron.static_scores import (
    BOUNDED,
    OF_ONE_TARGET,
    SCORES,
    WITHOUT_TARGET,
    best_neurons,
    dense_scores,
    gradients,
)
from twinlens.attribution.neuron.target_ranks import TargetRanks
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel, told_of

PAPER = "Yu, Ananiadou 2024 (arXiv 2312.12141)"
Site = Literal["ffn", "attn", "both"]

UNITS = {
    "logprob_increase": "nats: lp(x + m·v) − lp(x)",
    "log_prob": "nats: lp(m·v)",
    "prob_increase": "probability: p(x + m·v) − p(x)",
    "value_norm": "|v|",
    "coefficient": "|m|",
    "inverse_rank": "1 / rank of the target in U·direction(v)",
    "coefficient_norm": "|m|·|v|",
    "coefficient_inverse_rank": "|m| / rank of the target in U·direction(v)",
    "grad_x_act": "nats: m · d lp / dm",
}
OF_PAPER = tuple(score for score in UNITS if score != "grad_x_act")
"""The scores that the second paper compares."""
SIGNED = "positive: the neuron raises the target's log-probability"
UNSIGNED = "none about the target: the higher, the larger the neuron is"


class NeuronScore(ResidualMethod):
    """One of the eight scores of the second paper, or gradient times activation, as a configured method.

    Args:
        score: see `twinlens.attribution.neuron.static_scores`.
        site: `ffn` neurons; `attn` neurons, each at every token, of which a list may name one several times; `both`.
        mode: `corrected`, or `notebook`: without the final norm's bias, as the public notebooks.
        top_k: neurons kept per example, best first.

    Raises:
        UserError: an unknown score or site; grad_x_act of attention neurons.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.neuron_score import NeuronScore
        >>> model, batch = ExampleResidualModel(), example_batch()
        >>> found = NeuronScore("logprob_increase", site="ffn", top_k=2).attribute(model, batch, BUDGET)
        >>> found.layer.tolist(), found.unit.tolist()  # of each example, best first
        ([[1, 0], [1, 1]], [[3, 2], [3, 4]])
        >>> found.score.round(decimals=2)  # nats: what each neuron adds to the answer's log-probability
        tensor([[0.5900, 0.5100],
                [1.0500, 0.6100]])
    """

    papers: ClassVar[tuple[str, ...]] = (f"yu2024neuron if score={'|'.join(OF_PAPER)}",)

    def __init__(
        self,
        score: str = "logprob_increase",
        site: Site = "ffn",
        mode: Mode = "corrected",
        top_k: int = 100,
    ) -> None:
        if score not in SCORES:
            raise UserError(f"unknown neuron score '{score}'; expected one of {', '.join(SCORES)}.")
        if site not in ("ffn", "attn", "both"):
            raise UserError(f"unknown site '{site}' of {score}; expected ffn, attn or both.")
        if score == "grad_x_act" and site != "ffn":
            raise UserError(
                f"site={site} of grad_x_act: that score is defined for FFN neurons alone; expected site=ffn: use "
                "logprob_increase for attention neurons."
            )
        self.score = score
        self.site = site
        self.mode: Mode = mode
        self.top_k = top_k
        self.target_ranks: dict[str, TargetRanks] = {}

    @property
    def rank_sites(self) -> tuple[str, ...]:
        """Sites whose ranks of the target the score reads: `ffn`, `attn`, both or none."""
        if "rank" not in self.score:
            return ()
        return ("ffn", "attn") if self.site == "both" else (self.site,)

    def with_ranks(self, ranks: dict[str, TargetRanks]) -> NeuronScore:
        """The same method with what is known of the run's targets by site; results do not depend on it."""
        found = copy.copy(self)
        found.target_ranks = ranks
        return found

    @property
    def ranks(self) -> str:
        """The sites of its lists."""
        return self.site

    @property
    def explains(self) -> Lens | None:  # type: ignore[override]  # of some scores it is none
        """The neuron lens's target, unless the score is of the neuron alone."""
        return None if self.score in WITHOUT_TARGET else "neuron"

    @property
    def sets_apart(self) -> bool:
        """Whether the score has a form for the difference of two log-probabilities."""
        return self.score not in OF_ONE_TARGET

    @property
    def sign(self) -> str:
        """Whether a high score speaks of the target."""
        return SIGNED if self.score in (*BOUNDED, "grad_x_act") else UNSIGNED

    @property
    def unit(self) -> str:
        """Unit of the score."""
        return UNITS[self.score]

    def describe(self, model: ResidualModel) -> dict[str, object]:
        """Resolved settings for method.yaml."""
        bounded = self.score in BOUNDED and model.output_weight is not None
        return {
            "method": self.score,
            "source": f"{PAPER}, Sec. 4.1" if self.score in OF_PAPER else "gradient times activation",
            "score": self.score,
            "site": self.site,
            "mode": self.mode,
            "top_k": self.top_k,
            "search": "exact, by an upper bound" if bounded else "every neuron scored",
            "unit": self.unit,
            "sign": self.sign,
            **told_of(model),
        }

    def attribute(self, model: ResidualModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best neurons of every example, ties to FFN neurons, then to the lower layer, unit and position.

        Raises:
            UserError: a budget that does not hold one example.
        """

        def score(part: Explained, room: int) -> NeuronScores:
            found = []
            if self.site != "attn":
                found.append((FFN, self._best(model, part, ffn_units(model, part.states), room)))
            if self.site != "ffn":
                found.append((ATTENTION, self._best(model, part, attention_units(model, part.states), room)))
            return listed(found, self.top_k)

        return score_parts(model, batch, self.mode, self.site != "ffn", memory_budget, self.top_k, score)

    @property
    def adds_up(self) -> bool:
        """Of FFN neurons, scores about a target; attention neurons have one for each token of the text.

        Ranks and probabilities are added up over a completion's tokens as they are, so that the sum orders neurons.
        """
        return self.score not in WITHOUT_TARGET and self.site == "ffn"

    def token_scores(self, model: ResidualModel, batch: Batch, memory_budget: int) -> TokenScores:
        """See `NeuronMethod.token_scores`; every neuron is scored, as a sum has no bound to search by."""
        rows, scores, log_probs = [], [], []
        for chosen, part, room in explain(model, batch, self.mode, False, memory_budget):
            gradient = None
            if self.score == "grad_x_act":
                gradient = gradients(model, part.tokens, part.cotangent, room)
            units = ffn_units(model, part.states)
            layers = dense_scores(part.readout, units, self.score, room, gradient)
            rows.append(chosen)
            own = torch.stack([found[..., 0] for _, found in layers], 1).float()
            scores.append(own.masked_fill(units.coefficient[..., 0] == 0, 0) if units.routed else own)
            log_probs.append(
                all_scores(part.readout, part.states).log_softmax(-1).gather(1, part.target[:, None])[:, 0]
            )
        back = torch.cat(rows).argsort()
        return TokenScores(torch.cat(scores)[back], None, torch.cat(log_probs)[back])

    def _best(self, model: ResidualModel, part: Explained, units: Units, room: int) -> TopUnits:
        gradient = None
        if self.score == "grad_x_act":
            gradient = gradients(model, part.tokens, part.cotangent, room)
        known = self.target_ranks.get("attn" if units.positional else "ffn")
        ranks = None if known is None else known.of(part.readout.target)
        return best_neurons(part.readout, units, self.score, self.top_k, room, gradient, ranks)

    def bytes_per_example(self, model: ResidualModel, tokens: int) -> int:
        """States, then the search or the dense form of one layer, whichever the score takes."""
        attention = self.site != "ffn"
        searched = 0
        for site in ("ffn", "attn"):
            if self.site in (site, "both"):
                searched = max(searched, _bytes_of(self.score, model, site, tokens))
        if self.score == "grad_x_act":
            searched = max(searched, model.bytes_per_gradient(tokens))
        return model.bytes_per_example(tokens, attention) + searched

    def operations(self, model: ResidualModel, tokens: int) -> float:
        """Distributions of every layer and the bounds, or every neuron's distribution."""
        outputs, hidden = outputs_of(model), model.hidden_size
        positions = 1 if self.site == "ffn" else tokens
        units = model.n_layers * (model.n_neurons if self.site != "attn" else model.n_heads * model.head_dim)
        if "rank" in self.score or (self.score in BOUNDED and model.output_weight is None):
            return 2.0 * units * outputs * hidden
        points = 4.0 * model.n_layers * outputs * hidden * (self.score in BOUNDED)
        # the search evaluates a few hundred neurons exactly
        return points + 2.0 * units * (hidden + 6 * positions) + 4.0 * self.top_k * outputs * hidden


def outputs_of(model: ResidualModel) -> int:
    """Outputs of a linear readout; a few of a head that is not linear, which is a classifier's."""
    return 32 if model.output_weight is None else len(model.output_weight)


def _bytes_of(score: str, model: ResidualModel, site: str, tokens: int) -> int:
    """What scoring one example's neurons of a site takes beside its states."""
    n_units, positions = (model.n_neurons, 1) if site == "ffn" else (model.n_heads * model.head_dim, tokens)
    outputs, hidden = outputs_of(model), model.hidden_size
    if score in BOUNDED and model.output_weight is not None:
        row, block = 16 * (outputs + hidden), 12 * min(n_units, UNIT_BLOCK) * hidden
        return search_bytes(model.n_layers, n_units, positions, outputs, hidden) + row + block
    lists = 12 * model.n_layers * n_units * positions
    widened = 4 * n_units * hidden
    return (
        dense_bytes(1, n_units, positions, outputs, hidden)
        + 8 * (hidden + 1)
        + 32 * hidden * positions
        + lists
        + (widened)
    )


def listed(found: list[tuple[int, TopUnits]], top_k: int) -> NeuronScores:
    """The best of the best neurons of each site, sites in the given order where scores are equal."""
    sites = [torch.full_like(top.layer, site, dtype=torch.int8) for site, top in found]
    parts = {name: torch.cat([getattr(top, name) for _, top in found], 1) for name in ("layer", "unit", "position")}
    score, order = torch.cat([top.score for _, top in found], 1).float().sort(dim=1, descending=True, stable=True)
    order = order[:, :top_k]
    chosen = {name: part.gather(1, order) for name, part in parts.items()}
    best = NeuronScores(score=score[:, :top_k], site=torch.cat(sites, 1).gather(1, order), **chosen)
    return without_absent(best)
