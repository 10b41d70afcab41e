"""Ground truth that cannot be measured."""

from __future__ import annotations

from tests.bad_input_files import Entry, checkpoint
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
        "means for attribution patching of both sites",
        ("method=atp", "method.atp.site=both", "method.atp.intervention=mean"),
        ("method.atp.intervention=mean", "site=both are not all of these"),
    ),
    (
        "a joint path without a step",
        ("method=ig_joint", "method.ig_joint.n_steps=0"),
        ("n_steps=0", "method.ig_joint.n_steps=20"),
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
        "a removal of all train rows",
        ("method=gradsim", "evaluation=removal", "evaluation.removal.removed=[48]", *SMALL_DEMO),
        ("removed=[48]", "leaves nothing of 48 train rows"),
    ),
    (
        "a removal for a method that the run does not have",
        ("method=[gradsim,random_instances]", "evaluation=removal", "evaluation.removal.methods=[influence]"),
        ("names influence", "(gradsim)"),
    ),
    (
        "halves of three rows",
        ("method=gradsim", "evaluation=lds", *SMALL_DEMO, "data.limit.train=3"),
        ("a train split of 3 rows", "raise data.limit.train"),
    ),
    (
        "a refit of a head of several layers",
        ("method=gradsim", "evaluation=loo", "model.head=mlp", *SMALL_DEMO, "method.gradsim.top_k=24"),
        ("several layers", "use model.head=linear"),
    ),
    (
        "a refit of a head of choices",
        ("method=gradsim", "evaluation=loo", "data=demo_choice", *SMALL_DEMO, "method.gradsim.top_k=24"),
        ("choices", "take evaluation=removal"),
    ),
    (
        "a certificate of nothing",
        ("method=[gradsim,ig]", "evaluation=certificate", "evaluation.certificate.ablated=0"),
        ("ablated=0", "takes nothing away on one side"),
    ),
    (
        "a certificate of everything",
        ("method=[gradsim,ig]", "evaluation=certificate", "evaluation.certificate.level=1"),
        ("level=1", "between 0 and 1"),
    ),
    (
        "a certificate of a list that is too short",
        ("method=[gradsim,ig]", "evaluation=certificate", "method.ig.top_k=5"),
        ("the first 10", "raise method.ig.top_k"),
    ),
    (
        "a certificate of a method that the run does not have",
        ("method=[gradsim,ig]", "evaluation=certificate", "evaluation.certificate.instances=influence"),
        ("instances=influence", "which has gradsim"),
    ),
    (
        "a certificate by training for too few",
        ("method=[gradsim,ig]", "evaluation=certificate", "evaluation.certificate.retrained=5"),
        ("leaves 4 others", "expected 10 at least"),
    ),
    (
        "a certificate of what the lenses do not both explain",
        ("method=[gradsim,ig]", "evaluation=certificate", "explain={instance: gold, neuron: predicted}", *SMALL_DEMO),
        ("the instance lens explains gold, the neuron lens predicted", "set explain=predicted"),
    ),
    (
        "a certificate by training under a seed below 0",
        (
            "method=[gradsim,ig]",
            "evaluation=certificate",
            "evaluation.certificate.retrained=10",
            "evaluation.certificate.seed=-1",
        ),
        ("evaluation.certificate.seed=-1", "from 0 to 2147483647"),
    ),
    (
        "a refit with nothing but its penalty",
        ("method=gradsim", "evaluation=loo", "evaluation.loo.damping=inf"),
        ("damping=inf leaves no head but its centre", "at most 1e+12"),
    ),
    (
        "a damping beside which nothing of the curvature is left",
        ("method=influence_cg", "method.influence_cg.damping=1e300"),
        ("damping=1e+300 leaves nothing of the curvature", "at most 1e+12"),
    ),
    (
        "a residual that zeros have",
        ("method=influence_cg", "method.influence_cg.cg_tolerance=1"),
        ("cg_tolerance=1", "accepts zeros as a solution"),
    ),
    (
        "a step of nothing",
        ("method=gradsim", "evaluation=tail_patch", "evaluation.tail_patch.step=0"),
        ("step=0", "a step above 0"),
    ),
    (
        "a step on more rows than a list holds",
        ("method=gradsim", "evaluation=tail_patch", "evaluation.tail_patch.first=[200]"),
        ("first 200 train rows", "raise method.gradsim.top_k"),
    ),
    (
        "a step with weights that are spread",
        ("method=gradsim", "evaluation=tail_patch", "trainer=fsdp"),
        ("evaluation=tail_patch", "use trainer=ddp"),
    ),
    (
        "a damping that the explained examples would choose",
        ("method=influence", "method.influence.damping=auto", "attribute_split=validation", *SMALL_DEMO),
        ("damping=auto", "which is the explained one"),
    ),
    (
        "a damping that too few examples would choose",
        ("method=influence", "method.influence.damping=auto", *SMALL_DEMO, "data.limit.validation=5"),
        ("of which there are 5", "at least 10"),
    ),
    (
        "a damping chosen for a model that is given",
        ("method=influence", "method.influence.damping=auto", "fit=false", "model=local", "model.path=checkpoint"),
        ("fit=false", "damping=0.1"),
        checkpoint(),
    ),
    (
        "a damping chosen for what has no eigenvalues",
        ("method=influence", "method.influence.damping=auto", "method.influence.curvature=identity"),
        ("curvature=identity", "write damping=0.1"),
    ),
    (
        "a removal of more than a list holds",
        ("method=gradsim", "evaluation=removal", "evaluation.removal.removed=[200]"),
        ("first 200 train rows", "raise method.gradsim.top_k"),
    ),
]
