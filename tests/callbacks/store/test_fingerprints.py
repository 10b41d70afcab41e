"""A stage depends on the code it imports, and on no file beside it."""

from __future__ import annotations

import pytest

from twinlens.callbacks.store.fingerprints import with_imports


def test_a_method_brings_what_it_imports() -> None:
    influence = with_imports(["twinlens.attribution.instance.influence"])
    assert {
        "twinlens.attribution.instance.curvature",
        "twinlens.attribution.instance.solve",
        "twinlens.attribution.protocols",
    } <= set(influence)
    gradsim = with_imports(["twinlens.attribution.instance.gradsim"])
    assert "twinlens.attribution.instance.head_gradients" in gradsim
    assert "twinlens.attribution.instance.curvature" not in gradsim
    assert not any(name.startswith("twinlens.attribution.neuron") for name in gradsim)


def test_imports_inside_functions_count() -> None:
    assert "twinlens.models.families" in with_imports(["twinlens.models.last_token"])


def test_an_unknown_module_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        with_imports(["twinlens.attribution.nothing"])
