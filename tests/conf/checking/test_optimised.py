"""Number to optimise: refused before anything runs where the run cannot have it."""

from __future__ import annotations

from pathlib import Path

import pytest

from twinlens.attribution.errors import UserError
from twinlens.callbacks.tracking.optimised import keep_optimised, optimised, require_optimised
from twinlens.conf.checking.config_folders import ConfigTree
from twinlens.conf.checking.optimised import check_optimised

TREE = ConfigTree((Path(__file__).parents[3] / "conf",))
RUN = {"method": {"ig": {}, "influence": {}}, "evaluation": {"accuracy": {}, "lds": {}}}


@pytest.mark.parametrize(
    "name",
    [
        None, "influence/lds/lds_at_40", "accuracy/accuracy", "accuracy/validation/macro_f1",
        "random_instances/lds/lds_at_5", "time/fit", "data/cut_text",
    ],
)  # fmt: skip
def test_numbers_that_a_run_may_have(name: str | None) -> None:
    check_optimised({**RUN, "optimise": name}, TREE)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("ig/faithfulness/mrr", ["add faithfulness to evaluation=[…]", "accuracy, lds"]),
        ("lds", ["evaluation/metric", "influence/lds/lds_at_40"]),
        ("loss", ["evaluation/metric"]),
        ("influence/lds", ["the run has no such number"]),
        ("gradsim/lds/lds_at_40", ["no method gradsim", "ig, influence", "method=[…]"]),
    ],
)
def test_numbers_that_a_run_cannot_have(name: str, parts: list[str]) -> None:
    with pytest.raises(UserError) as refused:
        check_optimised({**RUN, "optimise": name}, TREE)
    assert [part for part in [f"optimise={name}", *parts] if part not in str(refused.value)] == []


def test_the_number_is_kept_returned_or_refused() -> None:
    numbers = {"influence/lds/lds_at_5": 0.5, "influence/lds/low": float("nan")}
    metrics: dict[str, float] = {}
    keep_optimised("influence/lds/lds_at_5", numbers, metrics)
    require_optimised("influence/lds/lds_at_5", numbers)
    require_optimised(None, numbers)
    assert optimised({"status": "done", "metrics": metrics}) == 0.5
    assert optimised({"status": "refused", "message": "no"}) is None
    assert optimised(ValueError()) is None
    with pytest.raises(UserError, match="did you mean influence/lds/lds_at_5"):
        require_optimised("influence/lds/lds_at_6", numbers)
    with pytest.raises(UserError, match="the number is nan"):
        require_optimised("influence/lds/low", numbers)
