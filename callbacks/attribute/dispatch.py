"""Classes that serve the words of a method's `reads`: the one place where forms of reading are told apart."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Method
from twinlens.callbacks.attribute.bridge_scores import InstanceListReads
from twinlens.callbacks.attribute.checkpoint_row_scores import CheckpointRowReads, SegmentRowReads
from twinlens.callbacks.attribute.instance_inputs import CheckpointReads, HeadReads, NeuronListReads, TextReads
from twinlens.callbacks.attribute.neuron_scores import ModelReads
from twinlens.callbacks.attribute.reads import Reads
from twinlens.callbacks.attribute.stored_row_scores import RowReads
from twinlens.callbacks.attribute.unit_score_files import BuiltReads
from twinlens.callbacks.attribute.unit_scores import UnitReads
from twinlens.callbacks.attribute.whole_gradient_scores import LayerReads
from twinlens.callbacks.passes.session import Session

READS: dict[str, type[Reads]] = {
    "head": HeadReads,
    "checkpoints": CheckpointReads,
    "text": TextReads,
    "neurons": NeuronListReads,
    "rows": RowReads,
    "checkpoint_rows": CheckpointRowReads,
    "segment_rows": SegmentRowReads,
    "layers": LayerReads,
    "units": UnitReads,
    "built": BuiltReads,
    "model": ModelReads,
    "instances": InstanceListReads,
}


def require_methods(methods: Mapping[str, Any]) -> None:
    """Refuse what is no method, or reads in a form that there is not.

    Raises:
        UserError: naming the method.
    """
    for name, method in methods.items():
        if not isinstance(method, Method):
            kind = f"{type(method).__module__}.{type(method).__qualname__}"
            raise UserError(
                f"method.{name}._target_={kind} is no method; expected a class that extends "
                "twinlens.attribution.instance.protocol.InstanceMethod or "
                "twinlens.attribution.neuron.protocol.NeuronMethod: let it extend one of them."
            )
        if method.reads not in READS:
            raise UserError(
                f"method.{name} reads '{method.reads}', expected one of {', '.join(READS)}: change `reads` of "
                f"{type(method).__qualname__}."
            )


def among_others(methods: Mapping[str, Any]) -> dict[str, Any]:
    """The run's methods, each as the others make it, see `Method.among`; what is no method is refused later."""
    known = {name: method for name, method in methods.items() if isinstance(method, Method)}
    return {name: method.among(known) if name in known else method for name, method in methods.items()}


def form_of(method: Method) -> type[Reads]:
    """The class of the form in which splits come to a method."""
    return READS[method.reads]


def reads_of(session: Session, name: str, methods: Mapping[str, Method], seed: int | None = None) -> Reads:
    """How a method of the run reads, with one of its seeds where it draws."""
    return form_of(methods[name])(session, name, methods[name].for_seed(seed), methods)
