"""Attribution patching: to first order, how φ falls when a neuron becomes what it is elsewhere."""

from __future__ import annotations

import torch
from torch import Tensor

from twinlens.attribution.evaluation.edits import Intervention
from twinlens.attribution.neuron.joint import JointMethod, Site
from twinlens.attribution.protocols import NeuronModel


class AttributionPatching(JointMethod):
    """(a_n − r_n) · ∂φ/∂a_n on the model itself: the first order of `ablation` with the same `intervention`.

    φ is the log-probability of what is explained, less that of what it is explained against, in nats. The gradient goes
    through all that lies above the neuron, norms, gates and attention at the answer token. With zeros, FFN neurons and
    no norm behind them it is the number of `grad_x_act`.

    Args:
        intervention: what a neuron becomes (r_n): its `mean` over a sample of examples at the answer token; `resample`,
            its value there in another example of the sample; `zero`.
        site: `ffn` neurons; `attn` neurons, inputs of the attention's output projection, which become 0; or `both`.
        reference_size: examples of the sample, drawn from the split that is scored.
        reference_seed: draws the sample and each example's partner in `resample`.
        top_k: neurons kept per example.

    Raises:
        UserError: an unknown site, a sample too small to draw from, or of attention neurons.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.atp import AttributionPatching
        >>> found = AttributionPatching("zero", top_k=2).attribute(ExampleNeuronModel(), example_batch(), BUDGET)
        >>> found.layer.tolist(), found.unit.tolist()  # of each example, best first; those of `ablation`
        ([[1, 0], [1, 0]], [[3, 0], [3, 0]])
        >>> found.score.round(decimals=2)  # nats; `ablation` says .03, .02 and .16, .07
        tensor([[0.0, 0.0]])
    """

    option = "atp"
    sign = "positive: without the neuron the target is less likely, to first order"
    unit = "nats: (a − r) · d log p / da"

    def __init__(
        self,
        intervention: Intervention = "mean",
        site: Site = "ffn",
        reference_size: int = 128,
        reference_seed: int = 0,
        top_k: int = 100,
    ) -> None:
        super().__init__(intervention, site, reference_size, reference_seed, top_k)

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
            "site": self.site,
            **self.told,
            "top_k": self.top_k,
        }
