"""Random controls draw other numbers in every seed of a run, and the same ones in every run of that seed."""

from __future__ import annotations

from typing import Any

import pytest
from omegaconf import OmegaConf

from twinlens.attribution.errors import UserError
from twinlens.callbacks.run.control_seeds import as_written, seed_in_run, with_seeds_of_run


def config(seed: int) -> Any:
    return OmegaConf.create(
        {
            "seed": seed,
            "method": {"random_neurons": {"seeds": [0, 1, 2]}, "ig": {"n_steps": 20}},
            "evaluation": {"faithfulness": {"control_seeds": [0, 5]}, "diversity": {"seeds": None}, "odd": None},
        }
    )


def test_seed_zero_leaves_controls_as_they_are_and_others_do_not_meet() -> None:
    drawn = {}
    for seed in (0, 1, 2):
        given = config(seed)
        moved = with_seeds_of_run(given)
        assert given == config(seed)  # config.yaml is written of it, and a replay moves it once
        drawn[seed] = set(moved.method.random_neurons.seeds)
        assert list(moved.evaluation.faithfulness.control_seeds) == [1000 * seed, 1000 * seed + 5]
        assert moved.evaluation.diversity.seeds is None
        written = as_written(OmegaConf.to_container(moved.method.random_neurons), seed)
        assert written == {"seeds": [0, 1, 2]}
    assert drawn[0] == {0, 1, 2}
    assert not drawn[0] & drawn[1]
    assert not drawn[1] & drawn[2]


def test_large_seeds_stay_in_range_and_come_back() -> None:
    moved = seed_in_run(2, 4_000_000_001)
    assert 0 <= moved < 2**31
    assert seed_in_run(moved, -4_000_000_001) == 2
    assert seed_in_run("a", 3) == "a"  # refused where it is read


@pytest.mark.parametrize(
    ("where", "seeds", "said"),
    [
        ("seeds", [0, -1], r"evaluation\.lds\.seeds=\[0, -1\] names the seed -1"),
        ("seed", -3, r"evaluation\.lds\.seed=-3 names the seed -3"),
        ("reference_seed", 2**31, r"names the seed 2147483648; expected whole numbers from 0 to 2147483647"),
        ("control_seeds", [4, 1, 4], r"names the seed 4 twice"),
    ],
)
@pytest.mark.parametrize("seed", [0, 1])
def test_seeds_that_are_none_are_refused_whatever_the_run_s_own(where: str, seeds: Any, said: str, seed: int) -> None:
    given = OmegaConf.create({"seed": seed, "method": None, "evaluation": {"lds": {where: seeds}, "odd": None}})
    with pytest.raises(UserError, match=said):
        with_seeds_of_run(given)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_run_s_seed_is_one_that_all_generators_take(seed: int) -> None:
    with pytest.raises(UserError, match=rf"seed={seed}; expected a whole number from 0 to 4294967295"):
        with_seeds_of_run(config(seed))
