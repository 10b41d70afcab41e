"""A stage depends on the code it imports, and on no file beside it."""

from __future__ import annotations

import pytest

from callbacks.fingerprints import with_imports


def test_a_method_brings_what_it_imports() -> None:
    influence = with_imports(["attribution.instance.influence"])
    assert {"attribution.instance.curvature", "attribution.instance.solve", "attribution.base"} <= set(influence)
    gradsim = with_imports(["attribution.instance.gradsim"])
    assert "attribution.instance.head_gradients" in gradsim
    assert "attribution.instance.curvature" not in gradsim
    assert not any(name.startswith("attribution.neuron") for name in gradsim)


def test_imports_inside_functions_count() -> None:
    assert "models.families" in with_imports(["models.last_token"])


def test_an_unknown_module_is_an_error() -> None:
    with pytest.raises(ModuleNotFoundError):
        with_imports(["attribution.nothing"])
