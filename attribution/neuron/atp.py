"""Attribution patching: how φ falls when a neuron becomes what it is elsewhere, from gradients at the model itself."""

from __future__ import annotations

from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.edits import Intervention
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.joint import JointMethod, Site
from twinlens.attribution.neuron.path_integral import Target
from twinlens.attribution.neuron.readout_falls import bytes_of_layer, readout_falls
from twinlens.attribution.protocols import AnswerStates, NeuronModel

ReadoutForm = Literal["exact", "linear"]
"""Whether what lies behind the last block is computed anew without a neuron, or is as linear as all before it."""


class AttributionPatching(JointMethod):
    """Estimate of `ablation` with the same `intervention`, from gradients of one answer token instead of a row of each.

    φ is the log-probability of what is explained, less that of what it is explained against, in nats. `exact`: the
    residual stream that leaves the last block moves by (a_n − r_n) · ∂x/∂a_n, and the last norm, the readout and the
    softmax are computed anew. `linear`: (a_n − r_n) · ∂φ/∂a_n, attribution patching as published; with zeros, FFN
    neurons and no norm behind them the number of `grad_x_act`.

    Args:
        intervention: what a neuron becomes (r_n): `zero`; its `mean` over a sample of examples at the answer token; or
            (`resample`) its value there in another example of the sample.
        readout: `exact` or `linear`; `exact` takes a backward for each dimension of the residual stream, and for
            encoders, whose readout reads no single token's stream, a forward for each neuron.
        site: `ffn` neurons; `attn` neurons, inputs of the attention's output projection, which become 0; or `both`.
        reference_size: examples of the sample, drawn from the split that is scored.
        reference_seed: draws the sample and each example's partner in `resample`.
        top_k: neurons kept per example.

    Raises:
        UserError: an unknown site or readout, a sample too small to draw from, or of attention neurons.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.atp import AttributionPatching
        >>> found = AttributionPatching(top_k=2).attribute(ExampleNeuronModel(), example_batch(), BUDGET)
        >>> found.layer.tolist(), found.unit.tolist()  # of each example, best first
        ([[0, 1], [1, 0]], [[0, 3], [3, 0]])
        >>> found.score.round(decimals=2)  # nats; `ablation` says .02 and .03, .16 and .07
        tensor([[0.0500, 0.0300],
                [0.1600, 0.0900]])
        >>> linear = AttributionPatching(readout="linear", top_k=2)
        >>> linear.attribute(ExampleNeuronModel(), example_batch(), BUDGET).score.round(decimals=2)
        tensor([[0.0500, 0.0100],
                [0.0700, 0.0200]])
    """

    papers: ClassVar[tuple[str, ...]] = ("nanda2023atp", "kramar2024atp")
    option = "atp"
    sign = "positive: without the neuron the target is less likely"
    unit = "nats: fall of the log-probability without the neuron, estimated"

    def __init__(
        self,
        intervention: Intervention = "zero",
        site: Site = "ffn",
        readout: ReadoutForm = "exact",
        reference_size: int = 128,
        reference_seed: int = 0,
        top_k: int = 100,
    ) -> None:
        if readout not in get_args(ReadoutForm):
            raise UserError(f"unknown readout '{readout}' of atp; expected one of {', '.join(get_args(ReadoutForm))}.")
        super().__init__(intervention, site, reference_size, reference_seed, top_k)
        self.readout: ReadoutForm = readout

    @property
    def points(self) -> tuple[Tensor, Tensor]:
        """The model itself."""
        return torch.ones(1, dtype=torch.float64), torch.ones(1, dtype=torch.float64)

    def describe(self, model: NeuronModel) -> dict[str, object]:
        """Resolved settings for method.yaml."""
        return {
            "method": "attribution patching",
            "source": "Nanda 2023; Kramár, Lieberum, Shah, Nanda 2024 (arXiv 2403.00745)",
            "intervention": self.intervention,
            "readout": self.readout,
            "site": self.site,
            **self.told,
            "top_k": self.top_k,
        }

    def need(self, sizes: EngineSizes) -> Need:
        """As other joint methods; `exact` holds slopes of the residual stream, of one layer's neurons at the least."""
        linear, footprint = super().need(sizes), sizes.footprint
        if self.readout == "linear":
            return linear
        slopes = 2 * sizes.sequences.edited * bytes_of_layer(footprint.hidden_size, footprint.units(self.site))
        whole = footprint.n_layers * slopes

        def most(columns: int) -> int:
            assert linear.step is not None
            return linear.least(columns) + whole + footprint.hidden_size * linear.step(columns)

        return Need(lambda columns: linear.least(columns) + slopes, most, linear.step)

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float:
        """The forward, a row there and back for each dimension of the stream, and a readout of each neuron."""
        linear, footprint = super().work(sizes, model, tokens), sizes.footprint
        if self.readout == "linear":
            return linear
        rows = footprint.hidden_size * 2 * footprint.n_layers * model.block_operations(tokens)
        reads = footprint.n_layers * footprint.units(self.site) * model.readout_operations
        return sizes.sequences.forwards() * model.forward_operations(tokens) + sizes.sequences.edited * (rows + reads)

    def _shares(
        self, model: NeuronModel, states: AnswerStates, target: Target, replacement: Tensor | None, memory_budget: int
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """See `JointMethod`."""
        if self.readout == "linear":
            return super()._shares(model, states, target, replacement, memory_budget)
        found = readout_falls(model, states, target, self.site, replacement, memory_budget)
        return found.get("ffn"), found.get("attn"), None
