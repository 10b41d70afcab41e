"""Refusals of numbers that a device, a fit or another setting cannot use: precisions, and types of weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from twinlens.attribution.errors import UserError
from twinlens.callbacks.fit.stage import trains
from twinlens.callbacks.passes.predict_pass import TRUE_TYPES
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.models.adapter_files import adapter_of
from twinlens.models.backbone import load_config
from twinlens.models.encoders import is_encoder
from twinlens.models.weight_types import AS_IT_IS, IN_FLOAT32, WORKS_INSTEAD

AS_READ = ("32-true", "32", "bf16-true")
"""Precisions that leave weights in bfloat16 as they are."""


def require_precision(trainer: Mapping[str, Any], fit: bool) -> None:
    """Refuse a precision that the run's device does not have; says in a line that a fit rounds its steps.

    Args:
        trainer: settings of the Trainer.
        fit: whether a model is trained.

    Raises:
        UserError: naming what to use.
    """
    precision = str(trainer.get("precision"))
    if precision in ("16", "16-mixed") and device_of(trainer) != "cuda":
        raise UserError(
            f"trainer.precision={precision} needs a GPU, and this run is on a CPU; expected 32-true or "
            "bf16-mixed there: set trainer.precision=bf16-mixed."
        )
    if precision.startswith("bf16"):
        require_bfloat16(trainer, f"trainer.precision={precision}", "trainer.precision=32-true")
    if precision in ("64", "64-true") and device_of(trainer) == "mps":
        raise UserError(
            f"trainer.precision={precision} computes in float64, which this device (mps) lacks; expected 32-true "
            "there: set trainer.precision=32-true or trainer.accelerator=cpu."
        )
    rounded = TRUE_TYPES.get(precision)
    if fit and rounded in (torch.bfloat16, torch.float16) and is_first_process():
        print(
            f"precision: trainer.precision={precision} trains the weights themselves in 16 bits, which round small "
            f"steps to nothing; {precision.split('-')[0]}-mixed keeps them in float32",
            flush=True,
        )


def require_bfloat16(trainer: Mapping[str, Any], asked: str, instead: str) -> None:
    """Refuse bfloat16 on a GPU that has no such numbers; CPUs compute with them, if slowly.

    Args:
        trainer: settings of the Trainer.
        asked: the setting that asks for them.
        instead: the setting that does not.

    Raises:
        UserError: naming the GPU.
    """
    if device_of(trainer) == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"{asked} computes in bfloat16, which this GPU ({torch.cuda.get_device_name()}) lacks; expected one of "
            f"Ampere or later, or other numbers: set {instead} or trainer.accelerator=cpu."
        )


def device_of(trainer: Mapping[str, Any]) -> str:
    """Kind of device that a Trainer takes: `cuda`, `mps` or `cpu`."""
    asked = str(trainer.get("accelerator", "auto"))
    if asked == "cpu":
        return "cpu"
    if torch.cuda.is_available() and asked in ("auto", "gpu", "cuda"):
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def refuse_numbers(session: Session, evaluations: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse weights in bfloat16 where the run could not use them.

    Args:
        session: of the run, its data prepared.
        evaluations: of the run, by name.
        settings: the whole configuration as plain values.

    Raises:
        UserError: another precision that contradicts them, a GPU without such numbers, a model from scratch, a fit of
            more than a head or float32 matrices, or steps of the weights themselves.
    """
    if session.trainers.weights_in != torch.bfloat16:
        return
    model, precision = settings["model"], session.trainers.precision
    asked = f"model.dtype={model['dtype']}"
    if model["dtype"] == "auto":
        asked += " (bfloat16 in this checkpoint)"
    if precision not in AS_READ:
        raise UserError(
            f"{asked} reads the weights in bfloat16, and trainer.precision={precision} is for weights of another type; "
            "expected one of the two: leave trainer.precision at 32-true, which takes weights as they are, or set "
            "model.dtype=float32."
        )
    require_bfloat16(settings["trainer"], asked, "model.dtype=float32")
    if model["path"] is None:
        raise UserError(
            f"{asked} is of a checkpoint's weights, but model={model['name']} starts from scratch, and training in "
            "bfloat16 rounds its steps to nothing; expected float32: set model.dtype=float32 "
            "trainer.precision=bf16-mixed."
        )
    beside = model["adapter"] == "lora" or (model["adapter"] == "keep" and adapter_of(model["path"]) is not None)
    whole = session.readout.of_vocabulary or is_encoder(load_config(model["path"], model["trust_remote_code"]))
    if trains(session, settings["fit"]):
        if precision == "bf16-true":
            raise UserError(
                f"{asked} trains what it trains in float32, and trainer.precision=bf16-true would cast that to "
                "bfloat16; expected 32-true, which leaves both: leave trainer.precision out."
            )
        if whole and not beside:
            matrices = ", or float32 matrices beside them" if session.readout.of_vocabulary else ""
            what = "the language model" if matrices else "an encoder with its own head"
            works = WORKS_INSTEAD if matrices else f"{IN_FLOAT32}, or {AS_IT_IS}"
            raise UserError(
                f"{asked} with a fit would train {what} in bfloat16, whose 8 bits round most steps of AdamW to "
                f"nothing; expected float32 weights{matrices}: {works}."
            )
        if not beside and is_first_process():
            print(
                f"fit: {asked} leaves the language model as it is; its head alone is trained, in float32. All weights: "
                "model.dtype=float32 trainer.precision=bf16-mixed; matrices beside them: model.adapter=lora",
                flush=True,
            )
    for name, evaluation in evaluations.items():
        if evaluation.requires == "tail_patch" and ((whole and not beside) or precision == "bf16-true"):
            raise UserError(
                f"evaluation={name} takes a step of the weights, and {asked} has them in bfloat16, whose 8 bits round "
                "such a step to nothing; expected float32: set model.dtype=float32, or leave the evaluation out."
            )
