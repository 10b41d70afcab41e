"""What data and architecture show to be impossible, refused before the fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.neuron.ig import PRESETS, IntegratedGradients
from twinlens.attribution.protocols import UserError
from twinlens.callbacks.attribute.method_graph import reads_of
from twinlens.callbacks.evaluate.faithfulness import reference_split
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.plan.device_rate import configured_architecture
from twinlens.callbacks.run.pipeline import splits_needed
from twinlens.models.footprint import footprint_of
from twinlens.models.linear_layers import linear_layers


def refuse_what_the_inputs_rule_out(
    session: Session,
    methods: Mapping[str, Any],
    evaluations: Mapping[str, Any],
    model: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    """Refuse, once data and configuration are read, what only a later stage would find.

    Args:
        session: of the run, its data prepared.
        methods, evaluations: of the run, by name.
        model: settings of the model.
        tokenizer: of the model.

    Raises:
        UserError: a split that the data do not have, a reference split that is missing or too small, gold targets of a
            folded split, layers that the model does not have, or a path through pre-activations on a gated model.
    """
    splits_needed(session.data.splits, session.split, methods)
    if any(isinstance(method, IntegratedGradients) for method in methods.values()):
        for evaluation in evaluations.values():
            if isinstance(evaluation, Faithfulness):
                reference_split(session, evaluation)
    for name, method in methods.items():
        if isinstance(method, IntegratedGradients):
            _require_target(session, name, method)
    beyond_head = [method for method in methods.values() if reads_of(method) in ("layers", "rows")]
    if beyond_head:
        lm = configured_architecture(session.data, model, tokenizer)
        for method in beyond_head:
            linear_layers(lm, lm.score if hasattr(lm, "score") else lm.get_output_embeddings(), method.params)
    before_activation = [
        method
        for method in methods.values()
        if isinstance(method, IntegratedGradients) and PRESETS[method.preset].site == "pre_activation"
    ]
    if before_activation:
        footprint = footprint_of(configured_architecture(session.data, model, tokenizer).base_model)
        for method in before_activation:
            method.path(footprint)


def _require_target(session: Session, name: str, method: IntegratedGradients) -> None:
    """A folded label is no class of the model, so that there is no probability of it to attribute."""
    if method.target == "gold" and session.split in session.data.folds:
        names = session.data.folds[session.split].names
        raise UserError(
            f"method.{name}.target=gold attributes the probability of the label, but the {session.split} split has the "
            f"labels {', '.join(names)}, which join several of the model's classes; expected classes of the model: set "
            f"method.{name}.target=predicted."
        )
