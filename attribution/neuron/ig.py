"""Integrated gradients of every neuron of either site (first paper, Eq. 6), all layers from one backward pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import ClassVar, Literal

import torch

from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.errors import UserError
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.path import Path, PathSite, Positions
from twinlens.attribution.neuron.path_integral import integrated_gradients
from twinlens.attribution.neuron.protocol import NeuronMethod
from twinlens.attribution.neuron.quadrature import nodes_and_weights
from twinlens.attribution.neuron.ranking import (
    NeuronScores,
    TokenScores,
    above_threshold,
    rank_neurons,
    rank_sites,
    with_coefficient,
)
from twinlens.attribution.protocols import Batch, ModelKind, NeuronModel

Preset = Literal["paper", "reference", "eleuther", "left", "midpoint", "gauss"]
Site = Literal["ffn", "attn", "both"]

PRESETS: dict[str, Path] = {
    "paper": Path("activation", "last", "right"),
    # the first paper's code: before the non-linearity, both ends of the path, weight 1/m; of several choices the
    # best sequence's raw score
    "reference": Path("pre_activation", "last", "linspace", threshold=0.1, of_choice="score"),
    # the public code it was derived from: no threshold, and the last token for every family
    "eleuther": Path("pre_activation", "last", "linspace"),
    "left": Path("activation", "last", "left"),
    "midpoint": Path("activation", "last", "midpoint"),
    "gauss": Path("activation", "last", "gauss"),
}

BROADCASTING_FAMILIES = ("bloom", "gpt_neox")
"""Families for which the authors' code writes the last token's activation into every position."""


class IntegratedGradients(NeuronMethod):
    """Integrated gradients of FFN neurons, of attention neurons, or of both, as a configured method.

    Args:
        preset: `paper` (Eq. 6: right Riemann sum on the down-projection's input at the answer position), `reference`
            (the authors' code), `eleuther`, `left`, `midpoint`, `gauss`.
        n_steps: steps m of the quadrature.
        positions: None takes the preset's; `last` scales the answer token's activation, `all` every position's own,
            `broadcast_last` writes the answer token's scaled activation into every position.
        site: `ffn`: inputs of the MLP's down-projection, as the paper; `attn`: inputs of the attention's output
            projection, one score per (layer, head, unit), with unit = head · head_dim + dim; `both`: the two, each
            along a path of its own, in one list. Attention neurons have no pre-activation, so that `reference` and
            `eleuther` are not defined for them, nor is `broadcast_last`.
        top_k: neurons kept per example, best first.

    Example:
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.ig import IntegratedGradients
        >>> method = IntegratedGradients(preset="gauss", n_steps=8, top_k=3)
        >>> found = method.attribute(ExampleNeuronModel(), example_batch(), BUDGET)
        >>> found.layer.tolist(), found.unit.tolist()  # of each example, best first
        ([[1, 0, 1], [1, 1, 0]], [[3, 0, 1], [3, 1, 0]])
        >>> found.score.round(decimals=2)  # probability: positive neurons raise the predicted class
        tensor([[0.0700, 0.0400, 0.0300],
                [0.3400, 0.1100, 0.0700]])
        >>> both = IntegratedGradients(preset="gauss", n_steps=8, site="both", top_k=3)
        >>> both.attribute(ExampleNeuronModel(), example_batch(), BUDGET).site.tolist()  # 0: FFN, 1: attention
        [[0, 1, 0], [0, 0, 0]]
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified", "sundararajan2017ig")
    sign = "positive: the neuron's activation raises the target's P"

    def __init__(
        self,
        preset: Preset = "paper",
        n_steps: int = 20,
        positions: Positions | None = None,
        site: Site = "ffn",
        top_k: int = 100,
    ) -> None:
        if preset not in PRESETS:
            raise UserError(f"unknown preset '{preset}' of ig; expected one of {', '.join(PRESETS)}.")
        nodes_and_weights(PRESETS[preset].rule, n_steps)
        require_defined(preset, positions, site)
        self.preset = preset
        self.n_steps = n_steps
        self.positions = positions
        self.site: Site = site
        self.top_k = top_k

    @property
    def ranks(self) -> str:
        """The sites of its lists."""
        return self.site

    def paths(self, model: ModelKind) -> list[Path]:
        """The path of each site, see `path`."""
        path = self.path(model)
        sites: tuple[PathSite, ...] = ("ffn", "attn") if self.site == "both" else (self.site,)
        return [replace(path, site=site) for site in sites]

    def path(self, model: ModelKind) -> Path:
        """The preset resolved for a model's family, as the path of FFN neurons.

        Raises:
            UserError: a preset that reads pre-activations on a gated MLP, where neurons have none of their own.
        """
        path = PRESETS[self.preset]
        if path.scaled == "pre_activation" and model.gated:
            raise UserError(
                f"method.ig.preset={self.preset} integrates the up-projection's output, which a gated MLP "
                f"({model.family}) multiplies with its gate, so it is not defined here; use preset=paper or gauss."
            )
        positions = path.positions
        if self.preset == "reference" and model.family in BROADCASTING_FAMILIES:
            positions = "broadcast_last"
        return replace(path, positions=self.positions or positions)

    def check_model(self, model: ModelKind) -> None:
        """See `path`."""
        self.path(model)

    def need(self, sizes: EngineSizes) -> Need:
        """The forward beside the prefix's keys and values, then variant rows, then the ranking of all neurons.

        Rows take what backward keeps of the blocks above them, one row at the least and all layers' rows at the most;
        at other positions than the last they are whole sequences. Sites follow each other; rows of attention neurons
        run through their own block as well.
        """
        footprint, edited = sizes.footprint, sizes.sequences.edited
        step: Callable[[int], int] | None = None
        if self.path(footprint).positions == "last":
            first = self.paths(footprint)[-1].entry(0)

            def chunk(columns: int) -> int:
                return edited * (footprint.kept(columns) + footprint.chunk(columns, first))

            def smallest(columns: int) -> int:
                return chunk(columns) + edited * footprint.row(columns, first)

            def whole(columns: int) -> int:
                each = (footprint.row(columns, layer + first) for layer in range(footprint.n_layers))
                return chunk(columns) + edited * (self.n_steps + 1) * sum(each)
        else:

            def step(columns: int) -> int:
                return edited * footprint.sequence_above(columns)

            def smallest(columns: int) -> int:
                return edited * footprint.kept(columns) + step(columns)

            def whole(columns: int) -> int:
                return edited * footprint.kept(columns) + (self.n_steps + 2) * step(columns)

        def least(columns: int) -> int:
            return max(sizes.states(columns), smallest(columns), edited * footprint.ranking(self.site))

        return Need(least, lambda columns: max(least(columns), whole(columns)), step)

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float:
        """The forward, then forward and backward (as much again) of every row through the blocks above its layer."""
        layers, sequences = sizes.footprint.n_layers, sizes.sequences
        forward, paths = model.forward_operations(tokens), self.paths(sizes.footprint)
        if paths[0].positions == "last":
            rows = sum(layers - path.entry(layer) for path in paths for layer in range(layers))
            blocks = (self.n_steps + 1) * rows
            return sequences.forwards() * forward + sequences.edited * 2 * blocks * model.block_operations(tokens)
        return forward * (sequences.forwards() + len(paths) * sequences.edited * 1.5 * layers * (self.n_steps + 2))

    def describe(self, model: NeuronModel) -> dict[str, object]:
        """Resolved settings for method.yaml."""
        path = self.path(model)
        return {
            "method": "integrated gradients",
            "source": "Yu, Atanasova, Augenstein 2024 (arXiv 2404.18655), Eq. 6",
            "preset": self.preset,
            "rule": path.rule,
            "n_steps": self.n_steps,
            "site": self.site,
            "scaled": path.scaled,
            "positions": path.positions,
            "threshold": path.threshold,
            "top_k": self.top_k,
            "unit": path.quantity(model),
            "sign": self.sign,
        }

    @property
    def adds_up(self) -> bool:
        """Integrals of log-probabilities do; the authors' threshold is about one token."""
        return PRESETS[self.preset].threshold is None

    def token_scores(self, model: NeuronModel, batch: Batch, memory_budget: int) -> TokenScores:
        """See `NeuronMethod.token_scores`: P is the token's log-probability."""
        paths = self.paths(model)
        found = {
            path.site: integrated_gradients(model, batch, path, self.n_steps, memory_budget, "log_prob")
            for path in paths
        }
        scores = {site: result.scores for site, result in found.items()}
        one = next(iter(found.values()))
        completeness = torch.stack([result.completeness for result in found.values()]).amax(0)
        return TokenScores(scores.get("ffn"), scores.get("attn"), one.log_prob, completeness)

    def attribute(self, model: NeuronModel, batch: Batch, memory_budget: int) -> NeuronScores:
        """The `top_k` best neurons of every example, for what the batch says is explained, else the predicted class.

        In multiple choice the neurons of the target's sequence are scored, unless the model edits all at once. Of both
        sites each layer's larger residual is the completeness.

        Args:
            memory_budget: bytes that the variant rows of one chunk may take; scores do not depend on it.
        """
        paths = self.paths(model)
        found = [integrated_gradients(model, batch, each, self.n_steps, memory_budget) for each in paths]
        result, threshold = found[0], paths[0].threshold
        about = (result.target, result.target_prob, torch.stack([one.completeness for one in found]).amax(0))
        if self.site == "ffn":
            present = with_coefficient(model.experts, result.scores)
            ranked = rank_neurons(result.scores, self.top_k, *about, present)
            return ranked if threshold is None else above_threshold(ranked, threshold)
        by_site = {each.site: one.scores for each, one in zip(paths, found, strict=True)}
        ffn = by_site.get("ffn")
        present = None if ffn is None else with_coefficient(model.experts, ffn)
        return rank_sites(ffn, by_site["attn"], self.top_k, *about, present)


def require_defined(preset: Preset, positions: Positions | None, site: Site) -> None:
    """Refuse an unknown site, and readings of FFN neurons that attention neurons do not have.

    Raises:
        UserError: naming the preset or the positions.
    """
    if site not in ("ffn", "attn", "both"):
        raise UserError(f"unknown site '{site}' of ig; expected ffn, attn or both.")
    if site == "ffn":
        return
    if PRESETS[preset].scaled == "pre_activation":
        raise UserError(
            f"site={site} of ig with preset={preset} scales what comes before a non-linearity, and attention neurons "
            "have none; expected a preset that scales the neurons themselves: use paper, left, midpoint or gauss, or "
            "site=ffn."
        )
    if positions == "broadcast_last":
        raise UserError(
            f"site={site} of ig with positions=broadcast_last: that is a slip of the authors' code about FFN neurons, "
            "which attention neurons do not have; expected positions=last or all: choose one, or site=ffn."
        )
