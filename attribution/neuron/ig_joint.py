"""Integrated gradients over all layers jointly: one path that switches every neuron of every layer on together."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from twinlens.attribution.evaluation.edits import Intervention
from twinlens.attribution.neuron.joint import JointMethod, Site
from twinlens.attribution.neuron.quadrature import Rule, nodes_and_weights
from twinlens.attribution.protocols import NeuronModel


class JointIntegratedGradients(JointMethod):
    """The mean of ∂φ/∂m_n while all neurons of all layers are switched on together, from m = 0 to m = 1.

    `ig` has a path for each layer, along which all others stay on; here there is one. Scores of all layers together add
    up to φ less φ without any neuron at the answer token, which `completeness` checks (the same number in every layer).
    φ is the log-probability of what is explained, less that of what it is explained against, in nats.

    Args:
        n_steps: points of the path.
        rule: of the quadrature: `gauss`, `right`, `left`, `midpoint` or `linspace`.
        intervention: what a neuron is where the path begins: `zero`, its `mean` over a sample, or `resample`.
        site: `ffn` neurons; `attn` neurons; or `both`, which are then switched on together as well.
        reference_size: examples of the sample, drawn from the split that is scored.
        reference_seed: draws the sample and each example's partner in `resample`.
        top_k: neurons kept per example.

    Raises:
        UserError: an unknown site or rule, no step, a sample too small to draw from, or of attention neurons.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.ig_joint import JointIntegratedGradients
        >>> found = JointIntegratedGradients(n_steps=16, top_k=10).attribute(
        ...     ExampleNeuronModel(), example_batch(), BUDGET
        ... )
        >>> found.layer[0, :3].tolist(), found.unit[0, :3].tolist()  # of the first example, best first
        ([1, 0, 0], [3, 2, 1])
        >>> found.score.sum(1).round(decimals=2)  # nats: what all neurons together do for the target
        tensor([0.3500, 1.5600])
        >>> bool(found.completeness.max() < 1e-3)
        True
    """

    papers: ClassVar[tuple[str, ...]] = ("sundararajan2017ig",)
    option = "ig_joint"
    complete = True
    sign = "positive: the neuron, switched on with all others, raises the target's log-probability"
    unit = "nats: share of log p with all neurons less log p with none"

    def __init__(
        self,
        n_steps: int = 8,
        rule: Rule = "gauss",
        intervention: Intervention = "zero",
        site: Site = "ffn",
        reference_size: int = 128,
        reference_seed: int = 0,
        top_k: int = 100,
    ) -> None:
        nodes_and_weights(rule, n_steps, self.option)
        super().__init__(intervention, site, reference_size, reference_seed, top_k)
        self.n_steps = n_steps
        self.rule: Rule = rule

    @property
    def points(self) -> tuple[Tensor, Tensor]:
        """Of the quadrature."""
        return nodes_and_weights(self.rule, self.n_steps, self.option)

    def describe(self, model: NeuronModel) -> dict[str, object]:
        """Resolved settings for method.yaml."""
        return {
            "method": "integrated gradients over all layers jointly",
            "source": "Sundararajan, Taly, Yan 2017 (arXiv 1703.01365), of every neuron's factor m",
            "n_steps": self.n_steps,
            "rule": self.rule,
            "intervention": self.intervention,
            "site": self.site,
            **self.told,
            "top_k": self.top_k,
        }
