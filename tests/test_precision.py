"""Both lenses in bf16: the lists stay close to those of float32, and what ran before does not change them."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.precision import SETTINGS, agreement, rankings
from tests.running import SMALLER_MODEL, CommandLine

NEWEST = {
    "newest": (
        ("atp", "relp", "ig_joint", "ablation", "influence_ekfac", "influence_cg"),
        ("method.influence_ekfac.params=all", "method.influence_cg.damping=100"),
    )
}
AGREE = 0.7
"""Mean share of common entries among the ten best; on the demo model it lies well above."""


@pytest.mark.long  # test_train.py has a run in bf16-mixed in the short series
@pytest.mark.parametrize("setting", [*SETTINGS, *NEWEST])
@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_bf16_ranks_nearly_as_float32(command: CommandLine, precision: str, setting: str) -> None:
    """Scores from the head, from whole gradients of all layers with their factors, and from stored rows."""
    methods, settings = {**SETTINGS, **NEWEST}[setting]
    smaller = SMALLER_MODEL if settings else ()  # factors of all layers take their time
    trained = command("method=gradsim", "evaluation=accuracy", *smaller).folder
    asked = (f"method=[{','.join(methods)}]", *settings, "evaluation=accuracy")
    explain = ("fit=false", "model=local", f"model.path={trained / 'model'}", *asked)
    runs = [command(*explain, f"trainer.precision={name}") for name in ("32-true", precision)]
    assert [run.code for run in runs] == [0, 0], runs[-1].err
    for method in methods:
        lists = zip(*(rankings(run.folder, method) for run in runs), strict=True)
        found = [agreement(*pair)["top10"] for pair in lists]
        assert np.mean(found) >= AGREE, (method, np.mean(found))
        assert min(len(ranking) for ranking in rankings(runs[1].folder, method)) > 0


def test_equal_rankings_agree_and_reversed_ones_do_not() -> None:
    ranking = {(n,): float(20 - n) for n in range(20)}
    assert agreement(ranking, ranking) == {"top10": 1.0, "top100": 1.0, "spearman": pytest.approx(1.0), "difference": 0}
    turned = {(n,): float(n) for n in reversed(range(20))}
    found = agreement(ranking, turned)
    assert found["top10"] == 0.0
    assert found["spearman"] == pytest.approx(-1.0)
