"""Settings and sizes that would be refused behind a fit of hours, and are before it."""

from __future__ import annotations

from tests.bad_input_files import Entry, checkpoint
from tests.bad_inputs_running import AS_IT_IS
from tests.running import SMALL_DEMO

ROWS = ("method=influence", "method.influence.params=all", "method.influence.projection=random", *SMALL_DEMO)
FITS: list[Entry] = [
    (
        "the steps of a fit that takes none",
        ("method=source", "model.max_epochs=0"),
        ("model.max_epochs=0", "method=source reads what the steps have done", "leave source out"),
    ),
    (
        "models that are fitted again with no learning rate",
        ("method=gradsim", "evaluation=lds", "model.learning_rate=0"),
        ("model.learning_rate=0", "evaluation=lds compares models", "a number above 0"),
    ),
    (
        "a damping that is chosen by fits of no batch",
        ("method=influence", "method.influence.damping=auto", "trainer.limit_train_batches=0"),
        ("trainer.limit_train_batches=0", "method.influence.damping=auto", "write damping=0.1"),
    ),
    (
        "a solve over whole layers with one pass",
        ("method=influence_cg", "method.influence_cg.cg_max_steps=1"),
        ("cg_max_steps=1 leaves no step", "at least 2"),
    ),
    (
        "tokens of examples with one loss each",
        ("method=gradsim", "method.gradsim.params=all", "method.gradsim.projection=random", "method.gradsim.per=token",
         *SMALL_DEMO),
        ("per=token", "data=demo have one loss per example"),
    ),
    (
        "a solver of the head for stored rows",
        (*ROWS, "method.influence.solver=cg"),
        ("solver=cg iterates over the head's curvature", "solver=auto, direct or dual"),
    ),
    (
        "matrices of stored rows that fit no memory",
        (*ROWS, "method.influence.curvature=datainf", "memory_budget=1MiB"),
        ("curvature=datainf does not fit the memory budget of 1.0 MiB", "lower method.<name>.projection_dim"),
    ),
    (
        "factors that fit no memory",
        ("method=influence_ekfac", "method.influence_ekfac.params=all", "memory_budget=1MiB", *SMALL_DEMO),
        ("keeps factors of", "more than half of memory_budget=1.0 MiB"),
    ),
    (
        "a solver that fits no memory",
        (*AS_IT_IS, "method=influence", "evaluation=accuracy", "memory_budget=1KiB"),
        ("memory budget", "data.limit.train"),
        checkpoint(),
    ),
    (
        "new LoRA matrices on data without train rows",
        ("model=facts", "data=knowledge", "method=ig", "evaluation=known_facts", "model.adapter=lora"),
        ("model.adapter=lora trains new matrices", "data=knowledge have no train rows", "model.adapter=keep"),
    ),
    (
        "an adapter to merge where there is none",
        ("method=gradsim", "model.adapter=merge", *SMALL_DEMO),
        ("model.adapter=merge", "model=tiny starts from scratch", "leave model.adapter at keep"),
    ),
    (
        "activations of other examples where there is one",
        ("method=atp", "method.atp.intervention=mean", *(one for one in SMALL_DEMO if "limit.test" not in one),
         "data.limit.test=1"),
        ("the test split, which has one", "method.atp.intervention=zero"),
    ),
    (
        "attention neurons whose values none is taken of",
        ("method=ig", "method.ig.site=attn", "evaluation=faithfulness", "evaluation.faithfulness.intervention=mean",
         *SMALL_DEMO),
        ("replaces activations of FFN neurons", "method=ig ranks attention neurons (site=attn)"),
    ),
    (
        "a control of a method that the run does not have",
        ("method=coefficient", "data=knowledge", "model=facts", "evaluation=interventions",
         "evaluation.interventions.control_of=ig"),
        ("control_of=ig is no neuron method of the run", "coefficient"),
    ),
]  # fmt: skip
