"""Settings of methods over whole gradients: the inverse curvature they need, their description of themselves."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.fisher import LayerBasis, absolute_damping
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.instance.gradsim import GradientSimilarity
from twinlens.attribution.instance.influence import Influence
from twinlens.attribution.protocols import LinearLayer

WholeMethod = GradientSimilarity | Influence


def needs_factors(method: WholeMethod) -> bool:
    """Whether the method has a curvature.

    Raises:
        UserError: one that is not built layer by layer.
    """
    curvature = method.curvature if isinstance(method, Influence) else "identity"
    if curvature not in ("identity", "kfac", "ekfac"):
        raise UserError(
            f"curvature={curvature} is not built layer by layer from whole gradients; expected identity, kfac or "
            "ekfac: use one of these or set projection=random."
        )
    return curvature != "identity"


def inverses_of(
    method: WholeMethod, layers: Sequence[LinearLayer], bases: Sequence[LayerBasis] | None
) -> list[Inverse]:
    """Each layer's (H + λ)⁻¹.

    Raises:
        UserError: a layer's Fisher block vanishes.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.influence import Influence
        >>> from twinlens.attribution.instance.whole_gradients import inverses_of
        >>> from twinlens.attribution.protocols import LinearLayer
        >>> layer = LinearLayer("score", torch.nn.Linear(4, 2), d_in=4, d_out=2, has_bias=True)
        >>> inverses_of(Influence(curvature="identity", damping=0.5, params="all"), [layer], bases=None)
        [Inverse(basis=None, damping=0.5)]
    """
    if not isinstance(method, Influence):
        return [Inverse()] * len(layers)
    if bases is None:
        return [Inverse(None, method.damping)] * len(layers)
    return [
        Inverse(basis, absolute_damping(basis, method.damping, layer.name))
        for basis, layer in zip(bases, layers, strict=True)
    ]


def describe(method: WholeMethod, layers: Sequence[LinearLayer], inverses: Sequence[Inverse]) -> dict[str, object]:
    """Settings, absolute dampings layer by layer, sign and unit."""
    common: dict[str, object] = {
        "params": method.params,
        "layers": [layer.name for layer in layers],
        "n_parameters": sum(layer.n_parameters for layer in layers),
        "labels": method.labels,
        "projection": "none",
        "dtype": "float32",
    }
    if isinstance(method, GradientSimilarity):
        dot = method.similarity == "dot"
        return {
            "similarity": method.similarity,
            **common,
            "sign": "positive: a gradient step on the train example lowers the test loss",
            "unit": "loss change per unit learning rate, nats" if dot else "cosine, -1 to 1",
        }
    means = [None if inverse.basis is None else float(inverse.basis.eigenvalues.mean()) for inverse in inverses]
    return {
        "curvature": method.curvature,
        "curvature_equals_ggn": False,
        "fisher": None if means[0] is None else method.fisher,
        "solver": "direct",
        "damping": method.damping,
        "damping_absolute": method.damping if means[0] is None else [inverse.damping for inverse in inverses],
        "mean_eigenvalue": None if means[0] is None else means,
        **common,
        "sign": "positive: training on the train example more lowers the test loss",
        "unit": "loss change per unit of weight in the mean train loss, nats; over n_train: leave one out",
    }
