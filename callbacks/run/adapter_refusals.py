"""Refusals of what is asked about an adapter where there is none, or nothing that would train one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.models.adapter_files import adapter_of


def refuse_idle_adapter(model: Mapping[str, Any], data: str, fits: bool) -> None:
    """Refuse a use of an adapter that would be without effect.

    Args:
        model: settings of the model.
        data: name of the data.
        fits: whether the run trains its model.

    Raises:
        UserError: new matrices that nothing trains, or an adapter to merge that is not there.
    """
    use, path = model.get("adapter", "keep"), model["path"]
    if use not in ("lora", "merge") or (path is not None and adapter_of(path) is not None):
        return
    where = f"model={model['name']} starts from scratch" if path is None else f"model.path={path} is none"
    if use == "merge":
        raise UserError(
            f"model.adapter=merge adds an adapter to its base, and {where}; expected the folder of an adapter: set "
            "model.path to it, or leave model.adapter at keep."
        )
    if not fits:
        raise UserError(
            f"model.adapter=lora trains new matrices beside the layers of model.path={path}, but data={data} have no "
            "train rows and the model is used as it is; expected a fit: choose data with train rows, or set "
            "model.adapter=keep."
        )
