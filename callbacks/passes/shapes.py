"""Sizes of a model that may have no values, for what is counted before a run has begun."""

from __future__ import annotations

from typing import Any

import torch

from twinlens.attribution.errors import UserError
from twinlens.callbacks.passes import costs
from twinlens.models.anatomy import Anatomy
from twinlens.models.footprint import footprint_of
from twinlens.models.residual import ResidualEngine


def shape_of(lm: Any) -> costs.Shape:
    """Sizes of a classifier that may have no values."""
    embeddings = {id(m.weight) for m in lm.base_model.modules() if isinstance(m, torch.nn.Embedding)}
    matrices = (p for p in lm.base_model.parameters() if p.dim() > 1 and id(p) not in embeddings)
    head = lm.score if hasattr(lm, "score") else lm.get_output_embeddings()
    vocabulary = head is lm.get_output_embeddings()
    return costs.Shape(
        footprint=footprint_of(lm.base_model, head.out_features if vocabulary else 0),
        parameters=sum(p.numel() for p in lm.parameters()),
        trained_parameters=sum(p.numel() for p in lm.parameters() if p.requires_grad),
        matmul_parameters=sum(p.numel() for p in matrices),
        head=head,
        residual=residual_shape(lm.base_model, head, vocabulary),
        lm=lm,
    )


def residual_shape(backbone: Any, head: Any, vocabulary: bool) -> ResidualEngine | None:
    """The residual engine for its sizes alone, unverified; None where its parts are not found."""
    try:
        return ResidualEngine(Anatomy(backbone), head, vocabulary)
    except UserError:
        return None
