"""Values of single examples behind the rows of results.csv, for comparing methods: <run>/outcomes.safetensors."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.comparisons import GROUPS, SAME_IN_OTHER_WORDS, Measured
from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.store.files import partial_of
from twinlens.callbacks.store.formats import FORMAT, RUN_FORMAT, require_known_format

FILE = "outcomes.safetensors"
_LISTED = "measured"


def without_control(variant: str) -> str:
    """A variant without the part that says how a control was drawn, not what was measured."""
    return ";".join(part for part in variant.split(";") if part and not part.startswith("control="))


def measured_of(
    evaluation: str, result: Result, settings: Mapping[str, str], controls: Sequence[str]
) -> Measured | None:
    """A result of a method with its values of single examples, None where there are none to compare.

    Args:
        evaluation: name of the evaluation.
        result: one of its results.
        settings: of each method, what is not as shipped; it stands behind the method's name.
        controls: names of the methods that are controls.
    """
    compared = result.group in GROUPS and not result.metric.endswith(SAME_IN_OTHER_WORDS)
    if result.samples is None or not result.method or not compared:
        return None
    variant = without_control(result.variant)
    method, matched = (
        f"{name} [{settings[name]}]" if settings.get(name) else name for name in (result.method, result.reference_group)
    )
    samples = result.samples.detach().cpu().double()
    return Measured(
        evaluation, result.metric, result.split, result.k, result.group, variant, method, matched,
        result.control or result.method in controls, result.unit, samples.view(-1, samples.shape[-1]),
    )  # fmt: skip


def write_outcomes(path: Path, measured: Sequence[Measured]) -> None:
    """Write values in single precision to a partial path and rename it; nothing where there are none."""
    path.unlink(missing_ok=True)
    if not measured:
        return
    said = [{key: value for key, value in vars(one).items() if key != "samples"} for one in measured]
    tensors = {str(number): one.samples.float().contiguous() for number, one in enumerate(measured)}
    partial = partial_of(path)
    save_file(tensors, partial, {_LISTED: json.dumps(said), FORMAT: str(RUN_FORMAT)})
    os.replace(partial, path)


def read_outcomes(path: Path) -> list[Measured]:
    """What `write_outcomes` left; nothing where a run has no such file, as those of before it.

    Raises:
        UserError: the file is damaged, or of a later format.
    """
    if not path.is_file():
        return []
    try:
        with safe_open(str(path), framework="pt") as opened:
            about = opened.metadata() or {}
            require_known_format(path, {FORMAT: int(about.get(FORMAT, 1))}, RUN_FORMAT)
            said = json.loads(about[_LISTED])
            tensors = [opened.get_tensor(str(number)).to(torch.float64) for number in range(len(said))]
        return [Measured(**cells, samples=samples) for cells, samples in zip(said, tensors, strict=True)]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path} cannot be read ({reason}); expected the values of single examples: make it again with "
            "overwrite=true."
        ) from None
