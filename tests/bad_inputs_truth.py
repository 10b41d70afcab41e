"""Ground truth that cannot be measured."""

from __future__ import annotations

from tests.bad_input_files import Entry
from tests.running import SMALL_DEMO

TRUTH: list[Entry] = [
    (
        "fewer subsets than an interval needs",
        ("method=gradsim", "evaluation=lds", "evaluation.lds.subsets=3"),
        ("subsets=3", "at least 5"),
    ),
    (
        "subsets that leave nothing out",
        ("method=gradsim", "evaluation=lds", "evaluation.lds.percent=100"),
        ("percent=100", "between 0 and 100"),
    ),
    (
        "lists that do not cover the train split",
        ("method=gradsim", "evaluation=lds", *SMALL_DEMO, "method.gradsim.top_k=10"),
        ("all 48 train rows", "method.gradsim.top_k=24"),
    ),
    (
        "a refit without a penalty",
        ("method=gradsim", "evaluation=loo", "evaluation.loo.damping=0"),
        ("damping=0", "above 0"),
    ),
    (
        "too few rows for a correlation",
        ("method=gradsim", "evaluation=loo", "evaluation.loo.rows=2"),
        ("rows=2", "at least 3"),
    ),
    (
        "neuron lists that leave neurons out",
        ("method=[ablation,ig]", "evaluation=neuron_truth", *SMALL_DEMO, "method.ablation.top_k=2048"),
        ("all 2048 neurons", "method.ig.top_k=2048"),
    ),
    (
        "means of neurons whose values none is taken of",
        ("method=ablation", "method.ablation.site=attn", "method.ablation.intervention=mean"),
        ("site=attn", "intervention=zero"),
    ),
    (
        "a wrong label that does not exist",
        ("method=gradsim", "evaluation=mislabel", "evaluation.mislabel.rows=[5,60]", *SMALL_DEMO),
        ("names row 60", "rows 0 to 47"),
    ),
    (
        "a removal of nothing",
        ("method=gradsim", "evaluation=removal", "evaluation.removal.removed=[]"),
        ("removed=[]", "takes nothing away"),
    ),
    (
        "a removal of more than a list holds",
        ("method=gradsim", "evaluation=removal", "evaluation.removal.removed=[200]"),
        ("first 200 train rows", "raise method.gradsim.top_k"),
    ),
]
