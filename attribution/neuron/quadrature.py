"""Quadrature rules for the path integral of integrated gradients."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from twinlens.attribution.errors import UserError

Rule = Literal["right", "left", "midpoint", "gauss", "linspace"]


def nodes_and_weights(rule: Rule, n_steps: int, method: str = "ig") -> tuple[Tensor, Tensor]:
    """Nodes α in [0, 1] and weights of an integration rule, float64 [n_steps] each.

    - `right`: k/m for k = 1…m, weight 1/m (right Riemann sum; first paper, Eq. 6; captum `riemann_right`)
    - `left`: k/m for k = 0…m−1, weight 1/m (captum `riemann_left`)
    - `midpoint`: (k + ½)/m, weight 1/m (captum `riemann_middle`)
    - `gauss`: Gauss–Legendre, exact for polynomials up to degree 2m − 1 (captum `gausslegendre`)
    - `linspace`: m points from 0 to 1 with both ends, weight 1/m each (the public codes; no captum rule equals it)

    Raises:
        UserError: unknown rule or n_steps < 1.

    Example:
        >>> from twinlens.attribution.neuron.quadrature import nodes_and_weights
        >>> nodes, weights = nodes_and_weights("right", n_steps=4)
        >>> nodes.tolist(), weights.tolist()
        ([0.25, 0.5, 0.75, 1.0], [0.25, 0.25, 0.25, 0.25])
        >>> nodes, weights = nodes_and_weights("gauss", n_steps=2)
        >>> round(float((weights * nodes**3).sum()), 6)  # exact up to degree 3
        0.25
    """
    if n_steps < 1:
        raise UserError(f"n_steps={n_steps}: expected at least 1 integration step; set method.{method}.n_steps=20.")
    if rule not in get_args(Rule):
        raise UserError(f"unknown quadrature rule '{rule}'; expected one of {', '.join(get_args(Rule))}.")
    if rule == "gauss":
        points, weights = np.polynomial.legendre.leggauss(n_steps)
        return torch.from_numpy((points + 1) / 2), torch.from_numpy(weights / 2)
    k = torch.arange(n_steps, dtype=torch.float64)
    nodes = {
        "right": (k + 1) / n_steps,
        "left": k / n_steps,
        "midpoint": (k + 0.5) / n_steps,
        "linspace": torch.linspace(0, 1, n_steps, dtype=torch.float64),
    }[rule]
    return nodes, torch.full((n_steps,), 1 / n_steps, dtype=torch.float64)
