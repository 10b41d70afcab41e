"""Precisions that a device lacks, on stand-ins for it; what a command is refused for stands in docs/errors.md."""

from __future__ import annotations

import pytest
import torch

from twinlens.attribution.errors import UserError
from twinlens.callbacks.run.number_refusals import device_of, require_bfloat16, require_precision


def test_bfloat16_is_refused_on_a_gpu_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla V100")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    for precision in ("bf16-mixed", "bf16-true"):
        with pytest.raises(UserError, match=f"{precision} .*Tesla V100.* lacks.*trainer.precision=32-true"):
            require_precision({"precision": precision, "accelerator": "auto"}, False)
        require_precision({"precision": precision, "accelerator": "cpu"}, False)
    require_precision({"precision": "16-mixed", "accelerator": "gpu"}, False)
    with pytest.raises(UserError, match=r"model\.dtype=bfloat16 .*lacks.*model\.dtype=float32"):
        require_bfloat16({"accelerator": "gpu"}, "model.dtype=bfloat16", "model.dtype=float32")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    require_bfloat16({"accelerator": "gpu"}, "model.dtype=bfloat16", "model.dtype=float32")


def test_float64_is_refused_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert device_of({"accelerator": "auto"}) == "mps"
    with pytest.raises(UserError, match=r"64-true .*mps.* lacks.*trainer\.accelerator=cpu"):
        require_precision({"precision": "64-true", "accelerator": "auto"}, False)
    require_precision({"precision": "64-true", "accelerator": "cpu"}, False)


def test_a_fit_in_16_bits_is_told_what_it_rounds(capfd: pytest.CaptureFixture[str]) -> None:
    require_precision({"precision": "bf16-true", "accelerator": "cpu"}, True)
    assert "round small steps to nothing; bf16-mixed keeps them in float32" in capfd.readouterr().out
    require_precision({"precision": "bf16-true", "accelerator": "cpu"}, False)
    require_precision({"precision": "bf16-mixed", "accelerator": "cpu"}, True)
    assert capfd.readouterr().out == ""
