"""RelP: a neuron's activation times its coefficient by relevance propagation, which holds what is not linear."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.edits import SITES_OF, Intervention
from twinlens.attribution.neuron.explained import all_scores, explain
from twinlens.attribution.neuron.joint import Site
from twinlens.attribution.neuron.protocol import ResidualMethod
from twinlens.attribution.neuron.ranking import NeuronScores, TokenScores, rank_token_scores
from twinlens.attribution.neuron.readout import at_target
from twinlens.attribution.neuron.relevance import mixed_values, relevance_coefficients
from twinlens.attribution.neuron.replacing import Replacing
from twinlens.attribution.protocols import Batch
from twinlens.attribution.residual_protocol import ResidualModel, told_of


class RelevancePatching(ResidualMethod, Replacing):
    """(a_n − r_n) · c_n, where c_n is what relevance propagation leaves of the gradient of φ, see `relevance`.

    φ is the log-probability of what is explained, less that of what it is explained against, in nats. Beside `atp` the
    gradients of norms, attention weights and activations are replaced by what these pieces do at this example.

    Args:
        intervention: what a neuron becomes (r_n): `zero`; its `mean` over a sample of examples at the answer token; or
            (`resample`) its value there in another example of the sample.
        site: `ffn` neurons; `attn` neurons, inputs of the attention's output projection at the answer token, which
            become 0; or `both`.
        reference_size: examples of the sample, drawn from the split that is scored.
        reference_seed: draws the sample and each example's partner in `resample`.
        top_k: neurons kept per example, best first.

    Raises:
        UserError: an unknown site, a sample too small to draw from, or of attention neurons.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleResidualModel, example_batch
        >>> from twinlens.attribution.neuron.relp import RelevancePatching
        >>> found = RelevancePatching(top_k=2).attribute(ExampleResidualModel(), example_batch(), BUDGET)
        >>> found.layer.tolist(), found.unit.tolist()  # of each example, best first
        ([[1, 0], [0, 1]], [[3, 2], [4, 3]])
        >>> found.score.round(decimals=2)  # nats
        tensor([[0.2800, 0.1900],
                [0.4000, 0.3000]])
    """

    papers: ClassVar[tuple[str, ...]] = ("jafari2025relp",)
    option = "relp"
    sign = "positive: the neuron's activation is relevant for the target, negative: against it"
    unit = "nats: (a − r) · coefficient of relevance"
    reads_keys = True

    def __init__(
        self,
        intervention: Intervention = "zero",
        site: Site = "ffn",
        reference_size: int = 128,
        reference_seed: int = 0,
        top_k: int = 100,
    ) -> None:
        if site not in SITES_OF:
            raise UserError(f"unknown site '{site}' of relp; expected one of {', '.join(SITES_OF)}.")
        super().__init__(intervention, site, reference_size, reference_seed, top_k)
        self.site: Site = site

    @property
    def ranks(self) -> str:
        """The sites of its lists."""
        return self.site

    @property
    def reads_attention(self) -> bool:
        """Of either site: relevance passes through the attention."""
        return True

    @property
    def adds_up(self) -> bool:
        """Relevances are shares of log-probabilities; a sample of activations is one of prompts' last tokens alone."""
        return self.intervention == "zero"

    def describe(self, model: ResidualModel) -> dict[str, object]:
        """Resolved settings for method.yaml."""
        return {
            "method": "relevance patching",
            "source": "Jafari, Eberle, Khakzar, Nanda 2025 (arXiv 2508.21258)",
            "rules": ["LN", "AH", "Identity", *(["Half"] if model.gated else [])],
            "intervention": self.intervention,
            "site": self.site,
            **self.told,
            "top_k": self.top_k,
            **told_of(model),
        }

    def attribute(self, model: ResidualModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best neurons of every example, for what the batch says is explained, else the predicted class."""
        found, target = self._scores(model, batch, memory_budget)
        return rank_token_scores(found, self.top_k, target)

    def token_scores(self, model: ResidualModel, batch: Batch, memory_budget: int) -> TokenScores:
        """See `NeuronMethod.token_scores`."""
        return self._scores(model, batch, memory_budget)[0]

    def _scores(self, model: ResidualModel, batch: Batch, memory_budget: int) -> tuple[TokenScores, Tensor]:
        """Dense scores, and what is explained, [batch]."""
        kept: list[tuple[Tensor, ...]] = []
        for rows, part, _ in explain(model, batch, "corrected", True, memory_budget):
            ffn, attention = relevance_coefficients(model, part)
            activation, states = part.states.activation.to(ffn), part.states
            off = self.replacement(activation, {"index": batch["index"][rows]})
            log_prob = at_target(all_scores(part.readout, states).log_softmax(-1), part.readout.target)
            of_sites = ((activation - off) * ffn, mixed_values(model, states).to(attention) * attention)
            kept.append((rows, *(scores.float() for scores in of_sites), log_prob, part.target))
        rows, ffn, attention, log_prob, target = (torch.cat(parts) for parts in zip(*kept, strict=True))
        back, chosen_sites = rows.argsort(), SITES_OF[self.site]
        wanted = [found[back] if chosen else None for found, chosen in zip((ffn, attention), chosen_sites, strict=True)]
        return TokenScores(wanted[0], wanted[1], log_prob[back]), target[back]

    def bytes_per_example(self, model: ResidualModel, tokens: int) -> int:
        """States, the rows of one layer, and the scores of all, dense and sorted."""
        units = model.n_neurons + model.n_heads * model.head_dim
        rows = 8 * model.hidden_size * (2 + model.gated) * units
        return model.bytes_per_example(tokens, True) + rows + 28 * model.n_layers * units

    def operations(self, model: ResidualModel, tokens: int) -> float:
        """Products with the rows by which neurons of every layer write and read."""
        ffn, attention = (3 + 2 * model.gated) * model.n_neurons, 2 * model.n_heads * model.head_dim
        return 2.0 * model.n_layers * model.hidden_size * (ffn + attention)
