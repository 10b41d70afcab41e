"""Seeds of methods and evaluations in a run: which are none, and those of controls moved on by the run's own seed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, ListConfig, OmegaConf

from twinlens.attribution.errors import UserError

STRIDE = 1000
"""Between the controls of two runs: seed 1 of the run makes 1000, 1001, 1002 of 0, 1, 2."""
LARGEST = 2**31
KEYS = ("seeds", "control_seeds")
GROUPS = ("method", "evaluation")


def with_seeds_of_run(config: DictConfig) -> DictConfig:
    """A configuration whose controls draw other numbers in every seed of the run, the same ones in every run of it.

    With the same draws in all of them, the error over training seeds would hold no variation of the control. Seed 0
    leaves all as it is.

    Raises:
        UserError: see `require_seeds`.
    """
    require_seeds(config)
    if not config.seed:
        return config
    moved = config.copy()
    OmegaConf.set_readonly(moved, False)
    for group in GROUPS:
        for node in (moved.get(group) or {}).values():
            for key in KEYS:
                seeds = node.get(key) if isinstance(node, DictConfig) else None
                if isinstance(seeds, ListConfig):
                    node[key] = [seed_in_run(seed, config.seed) for seed in seeds]
    return moved


def require_seeds(config: DictConfig) -> None:
    """Refuse seeds below 0 or beyond what generators take, and one that is named twice: its draws would count twice.

    Raises:
        UserError: naming the setting.
    """
    if not 0 <= config.seed < 2 * LARGEST:
        raise UserError(f"seed={config.seed}; expected a whole number from 0 to {2 * LARGEST - 1}: write another one.")
    for group in GROUPS:
        for name, node in (config.get(group) or {}).items():
            for key, value in node.items() if isinstance(node, DictConfig) else ():
                if key not in KEYS and key != "seed" and not str(key).endswith("_seed"):
                    continue
                seeds = list(value) if isinstance(value, ListConfig) else [value]
                setting = ".".join(map(str, (group, name, key)))
                whole = [seed for seed in seeds if isinstance(seed, int) and not isinstance(seed, bool)]
                strange = next((seed for seed in whole if not 0 <= seed < LARGEST), None)
                if strange is not None:
                    raise UserError(
                        f"{setting}={value} names the seed {strange}; expected whole numbers from 0 to "
                        f"{LARGEST - 1}: write another one."
                    )
                twice = next((seed for place, seed in enumerate(whole) if seed in whole[:place]), None)
                if twice is not None:
                    raise UserError(
                        f"{setting}={value} names the seed {twice} twice, whose draws are the same; "
                        "expected different seeds: leave one out."
                    )


def seed_in_run(seed: Any, run_seed: int) -> Any:
    """The seed that a control draws with; what is no whole number stays as it is, to be refused where it is read."""
    whole = isinstance(seed, int) and not isinstance(seed, bool)
    return (seed + STRIDE * run_seed) % LARGEST if whole else seed


def as_written(node: Mapping[str, Any], run_seed: int) -> dict[str, Any]:
    """An entry's plain values with the seeds that the configuration gave."""
    return {
        key: [seed_in_run(seed, -run_seed) for seed in value] if key in KEYS and isinstance(value, list) else value
        for key, value in node.items()
    }
