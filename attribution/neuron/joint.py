"""Scores of all neurons of all layers together, by φ as a function of how far each neuron is switched on.

φ(m): at the answer token every neuron n becomes r_n + m_n (a_n − r_n), where a_n is what the edited forward itself
computes there and r_n what a switched-off neuron becomes. m = 1 is the model and m = 0 has all neurons off. Exact
ablation is φ(1) − φ(1 − e_n); ∂φ/∂m_n at m = 1 is its first order; the mean of ∂φ/∂m_n from m = 0 to m = 1 shares
φ(1) − φ(0) out among all neurons of all layers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.edits import SITES_OF, Intervention
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.path_integral import Target
from twinlens.attribution.neuron.ranking import NeuronScores, TokenScores, rank_token_scores, with_coefficient
from twinlens.attribution.neuron.replacing import Replacing
from twinlens.attribution.protocols import ActivationEdit, AnswerStates, Batch, NeuronModel
from twinlens.attribution.targets import target_of

Site = Literal["ffn", "attn", "both"]


@dataclass(frozen=True)
class JointSlopes:
    """Weighted sum over points m = α · 1 of what φ gains by each neuron's own m_n.

    Attributes:
        ffn: Σ_k w_k ∂φ/∂m_n of FFN neurons, in the unit of φ, [sequences, layers, neurons], float32; None: they are no
            part of m.
        attention: of attention neurons, [sequences, layers, attention neurons]; None: they are no part of m.
        phi: φ at every point, [batch, points].

    Example:
        >>> import torch
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.joint import joint_slopes
        >>> from twinlens.attribution.neuron.path_integral import Target
        >>> model, batch = ExampleNeuronModel(), example_batch()
        >>> states, one = model.states(batch), torch.ones(1)
        >>> target = Target(batch["labels"], "log_prob")
        >>> found = joint_slopes(model, states, target, (one, one), "ffn", None, BUDGET)
        >>> found.ffn.shape, found.attention
        (torch.Size([2, 2, 5]), None)
        >>> bool((found.phi - target.of(states.scores[:, None])).abs().max() < 1e-6)  # m = 1 is the model itself
        True
    """

    ffn: Tensor | None
    attention: Tensor | None
    phi: Tensor


def joint_slopes(
    model: NeuronModel,
    states: AnswerStates,
    target: Target,
    points: tuple[Tensor, Tensor],
    site: str,
    replacement: Tensor | None,
    memory_budget: int,
) -> JointSlopes:
    """Gradients of φ by all m_n at once: each point is one edited answer token through all blocks, and one backward.

    Args:
        states: of the batch.
        target: what φ is.
        points: α, and the weight of each, [points] each.
        site: neurons that m scales, `ffn`, `attn` or `both`.
        replacement: r of FFN neurons, broadcastable to [sequences, layers, neurons]; None: 0. Attention neurons
            become 0.
        memory_budget: bytes; results do not depend on it.
    """
    nodes, weights = points
    widths = widths_of(model, site)
    n_sequences = len(states.activation)
    per_row = model.bytes_per_row(states, 0) + n_sequences * bytes_of_row(model.n_layers, sum(widths.values()))
    room = memory_budget - model.bytes_of_states(states) - model.bytes_per_chunk(states, 0)
    step = max(1, min(len(nodes), room // per_row))
    total = {
        name: torch.zeros(n_sequences, model.n_layers, width, device=states.activation.device)
        for name, width in widths.items()
    }
    phi = []
    for start in range(0, len(nodes), step):
        own = nodes[start : start + step].to(total[next(iter(total))])
        masks = masks_at(own.expand(n_sequences, -1), range(model.n_layers), widths)
        with torch.enable_grad():
            edits = edits_of(masks, replacement)
            value = target.of(model.score_edits(states, edits["ffn"], len(own), edits["attn"]))
            leaves = [mask for of_site in masks.values() for mask in of_site.values()]
            slopes = iter(torch.autograd.grad(value.sum(), leaves))
        share = weights[start : start + step].to(own)
        for name in widths:
            total[name] += torch.stack([torch.einsum("skn,k->sn", next(slopes), share) for _ in masks[name]], 1)
        phi.append(value.detach())
    return JointSlopes(total.get("ffn"), total.get("attn"), torch.cat(phi, 1))


Masks = Mapping[str, Mapping[int, Tensor]]
"""m by site and layer, [sequences, rows, units] each."""


def widths_of(model: NeuronModel, site: str) -> dict[str, int]:
    """Units of a layer of each site that is asked for."""
    widths = zip(("ffn", "attn"), (model.n_neurons, model.n_attention), SITES_OF[site], strict=True)
    return {name: width for name, width, chosen in widths if chosen}


def masks_at(values: Tensor, layers: Iterable[int], widths: Mapping[str, int]) -> Masks:
    """m of some layers, to be differentiated by, all of a row the same, `values` [sequences, rows]."""
    return {
        name: {layer: values[..., None].repeat(1, 1, width).requires_grad_() for layer in layers}
        for name, width in widths.items()
    }


def edits_of(masks: Masks, replacement: Tensor | None) -> dict[str, ActivationEdit]:
    """What is done to the activations of either site; those that m leaves out stay as they are."""

    def of(name: str, other: Tensor | None) -> ActivationEdit:
        def edit(layer: int, activation: Tensor) -> Tensor:
            if layer not in masks.get(name, {}):
                return activation
            mask = masks[name][layer]
            if other is None:
                return (mask * activation).to(activation.dtype)
            off = other[:, layer, None].to(activation)
            return off + (mask * (activation - off)).to(activation.dtype)

        return edit

    return {"ffn": of("ffn", replacement), "attn": of("attn", None)}


def bytes_of_row(n_layers: int, n_units: int) -> int:
    """What one point takes beside an edited answer token: m, its gradient and the edited copy of every neuron."""
    return 12 * n_layers * n_units


class JointMethod(Replacing):
    """A method that sums gradients of φ(m) over points; extend it.

    Args:
        intervention, reference_size, reference_seed, top_k: see `Replacing`.
        site: neurons that m scales.

    Example:
        >>> from twinlens.attribution.neuron.atp import AttributionPatching
        >>> from twinlens.attribution.neuron.ig_joint import JointIntegratedGradients
        >>> from twinlens.attribution.neuron.joint import JointMethod
        >>> methods: list[JointMethod] = [AttributionPatching(), JointIntegratedGradients(n_steps=2, rule="right")]
        >>> [(method.points[0].tolist(), method.complete) for method in methods]
        [([1.0], False), ([0.5, 1.0], True)]
    """

    complete = False
    """Whether its scores share φ(1) − φ(0) out, so that what is missing of it can be said."""

    def __init__(
        self,
        intervention: Intervention,
        site: Site,
        reference_size: int,
        reference_seed: int,
        top_k: int,
    ) -> None:
        if site not in SITES_OF:
            raise UserError(f"unknown site '{site}' of {self.option}; expected one of {', '.join(SITES_OF)}.")
        super().__init__(intervention, site, reference_size, reference_seed, top_k)
        self.site: Site = site

    @property
    def points(self) -> tuple[Tensor, Tensor]:
        """α of every point, and its weight, [points] each."""
        raise NotImplementedError

    @property
    def ranks(self) -> str:
        """The sites of its lists."""
        return self.site

    @property
    def adds_up(self) -> bool:
        """Slopes of log-probabilities do; a sample of activations is one of prompts' last tokens alone."""
        return self.intervention == "zero"

    def need(self, sizes: EngineSizes) -> Need:
        """The forward beside the prefix's keys and values, then edited tokens with all that backward keeps."""
        footprint, edited = sizes.footprint, sizes.sequences.edited
        n_rows = len(self.points[0]) + self.complete

        def row(columns: int) -> int:
            units = footprint.units(self.site)
            return edited * (footprint.row(columns, 0) + bytes_of_row(footprint.n_layers, units))

        def kept(columns: int) -> int:
            return edited * (footprint.kept(columns) + footprint.chunk(columns, 0))

        def least(columns: int) -> int:
            return max(sizes.states(columns), kept(columns) + row(columns), edited * footprint.ranking(self.site))

        return Need(least, lambda columns: max(least(columns), kept(columns) + n_rows * row(columns)), row)

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float:
        """The forward, then forward and backward (as much again) of every point through all blocks."""
        footprint, sequences = sizes.footprint, sizes.sequences
        blocks = (len(self.points[0]) + self.complete) * footprint.n_layers * model.block_operations(tokens)
        return sequences.forwards() * model.forward_operations(tokens) + sequences.edited * 2 * blocks

    def attribute(self, model: NeuronModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best neurons of every example, for what the batch says is explained, else the predicted class.

        Args:
            memory_budget: bytes that the points of one chunk may take; scores do not depend on it.
        """
        found, target, present = self._scores(model, batch, memory_budget)
        return rank_token_scores(found, self.top_k, target, present)

    def token_scores(self, model: NeuronModel, batch: Batch, memory_budget: int) -> TokenScores:
        """See `NeuronMethod.token_scores`."""
        return self._scores(model, batch, memory_budget)[0]

    def _scores(
        self, model: NeuronModel, batch: Batch, memory_budget: int
    ) -> tuple[TokenScores, Tensor, Tensor | None]:
        """Dense scores, the class that is explained, [batch], and which FFN neurons an example has (`rank_neurons`)."""
        with torch.no_grad():
            states = model.states(batch, batch.get("target"))
        classes = target_of(batch, states.scores)
        target = Target(classes, "log_prob", batch.get("against"))
        replacement = self.replacement(states.activation, batch) if self.reads_reference else None
        ffn, attention, completeness = self._shares(model, states, target, replacement, memory_budget)
        log_prob = Target(classes, "log_prob").of(states.scores[:, None])[:, 0]
        own = states.activation.unflatten(0, (-1, model.sequences_per_example)).abs().amax(1)
        present = with_coefficient(model.experts, own)
        return TokenScores(ffn, attention, log_prob, completeness), classes, present

    def _shares(
        self, model: NeuronModel, states: AnswerStates, target: Target, replacement: Tensor | None, memory_budget: int
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Scores of FFN neurons and of attention neurons, [batch, layers, units], and completeness, [batch, layers]."""
        nodes, weights = self.points
        if self.complete:  # the end of the path that no forward has seen yet
            nodes, weights = (torch.cat([part, part.new_zeros(1)]) for part in (nodes, weights))
        found = joint_slopes(model, states, target, (nodes, weights), self.site, replacement, memory_budget)
        ffn, attention = (_over_sequences(model, part) for part in (found.ffn, found.attention))
        if not self.complete:
            return ffn, attention, None
        shared = sum(part.double().sum((1, 2)) for part in (ffn, attention) if part is not None)
        whole = target.of(states.scores[:, None])[:, 0] - found.phi[:, -1]
        return ffn, attention, (shared - whole.double()).abs().float()[:, None].expand(-1, model.n_layers)


def _over_sequences(model: NeuronModel, scores: Tensor | None) -> Tensor | None:
    """Scores summed over an example's sequences where a neuron is edited in all of them, [batch, layers, units]."""
    return None if scores is None else scores.unflatten(0, (-1, model.sequences_per_example)).sum(1)
