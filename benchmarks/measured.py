"""Measurements of a benchmark run so far, and the settings that all its lines share."""

from __future__ import annotations

import contextlib
import importlib.util
from dataclasses import dataclass, field

from benchmarks.pairs import Comparison

TOLERANCE = 1e-5
"""Relative difference that rounding explains in float32."""
TINY = {"n_layer": 2, "n_embd": 32, "n_head": 4, "vocab_size": 60, "bos_token_id": 0, "eos_token_id": 0}
"""The model of a smoke run."""


@dataclass
class Outcome:
    """What has been measured so far; each addition is printed at once."""

    comparisons: list[Comparison] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, comparison: Comparison) -> None:
        """A ratio, and the difference of the results where they have to agree."""
        self.comparisons.append(comparison)
        print(f"{comparison.name} {comparison.ratio:.3g}", flush=True)
        if comparison.difference is not None:
            print(f"{comparison.name}_difference {comparison.difference:.1e}", flush=True)

    def add_value(self, name: str, value: float) -> None:
        """A number that is no ratio of times."""
        self.values[name] = value
        print(f"{name} {value:.1e}", flush=True)

    def skip(self, name: str, reason: str) -> None:
        """A comparison that this installation cannot make."""
        self.skipped[name] = reason
        print(f"{name} {reason}", flush=True)

    def skip_absent(self, name: str, package: str) -> bool:
        """Whether a peer is not installed; says so where it is not."""
        if not is_installed(package):
            self.skip(name, "skipped: needs pip install twinlens[bench]")
            return True
        return False


def is_installed(package: str) -> bool:
    """Whether a peer can be imported."""
    with contextlib.suppress(ValueError):  # a module without a specification stands in sys.modules
        return importlib.util.find_spec(package) is not None
    return False
