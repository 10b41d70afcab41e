"""Faults that only a run in progress finds."""

from __future__ import annotations

from tests.bad_input_files import AS_IT_IS, GOOD, LOCAL, Entry, checkpoint, lines, not_finite, without_a_layer
from tests.running import SMALL_DEMO

WHILE_RUNNING: list[Entry] = [
    (
        "a loss that is not finite",
        (
            "method=gradsim",
            "model.learning_rate=1e30",
            "model.gradient_clip_val=null",
            *SMALL_DEMO,
            "trainer.limit_train_batches=1.0",
        ),
        ("NaN or infinite", "index", "learning_rate"),
        None,
    ),
    ("weights that are not finite", AS_IT_IS, ("NaN or infinite", "score.weight", "float32"), checkpoint(not_finite)),
    ("a checkpoint without one of its layers", AS_IT_IS, ("lacks", "layers.1"), checkpoint(without_a_layer)),
    (
        "gold labels of unlabelled examples",
        (
            "fit=false",
            *LOCAL,
            "data=table",
            "data.path=data.jsonl",
            "data.label=null",
            "method=ig",
            "explain=gold",
            "evaluation=uniqueness",
        ),
        ("explain=gold", "needs a label of every row", "explain=predicted"),
        lambda folder, trained: [checkpoint()(folder, trained), lines(*GOOD)(folder, trained)],
    ),
    (
        "a solve that does not reach its residual",
        (*AS_IT_IS, "method=influence_cg", "evaluation=accuracy", "method.influence_cg.cg_max_steps=2"),
        ("relative residual of", "cg_tolerance=0.001", "raise cg_max_steps"),
        checkpoint(),
    ),
    (
        "a store where there is a file",
        (*AS_IT_IS, "method=gradsim", "evaluation=accuracy", "paths.store=taken/store"),
        ("store", "paths.store=DIR"),
        lambda folder, trained: [checkpoint()(folder, trained), (folder / "taken").write_text("")],
    ),
]
