"""Settings that are refused."""

from __future__ import annotations

from tests.bad_input_files import Entry
from tests.running import SMALL_DEMO

SETTINGS: list[Entry] = [
    (
        "new LoRA matrices beside a model from scratch",
        ("method=gradsim", "model.adapter=lora"),
        ("model.adapter=lora", "model=tiny starts from scratch", "model.adapter=keep"),
    ),
    (
        "a run's seed that no generator takes",
        ("method=gradsim", "seed=-1"),
        ("seed=-1", "from 0 to 4294967295"),
    ),
    ("a model that does not exist", ("model=pythia401m",), ("model=pythia401m", "pythia410m")),
    ("data that do not exist", ("data=averitek",), ("data=averitek", "averitec")),
    ("a method that does not exist", ("method=gradsym",), ("method=gradsym", "gradsim")),
    ("an evaluation that does not exist", ("evaluation=faithfullness",), ("faithfulness",)),
    ("a trainer that does not exist", ("trainer=dpp",), ("trainer=dpp", "ddp")),
    ("a logger that does not exist", ("logger=wandbb",), ("logger=wandbb", "wandb")),
    ("an experiment that does not exist", ("experiment=averitec_tny",), ("averitec_tiny",)),
    ("a misspelt group", ("modle=tiny",), ("modle", "model")),
    ("a misspelt key of a method", ("method.ig.n_step=5",), ("n_step", "n_steps")),
    ("a misspelt key of the Trainer", ("trainer.max_epoch=1",), ("max_epoch", "max_epochs")),
    ("a key of a method that is not in the run", ("method=ig", "method.gradsim.top_k=5"), ("gradsim", "method=[ig,")),
    ("text where a number belongs", ("seed=abc",), ("seed", "abc", "int")),
    ("text where a number of a method belongs", ("method.ig.n_steps=many",), ("n_steps", "many", "int")),
    ("a word that is no batch size", ("data.eval_batch_size=many",), ("eval_batch_size", "many", "an int or 'auto'")),
    ("a word where yes or no belongs", ("fit=maybe",), ("fit", "maybe", "true or false")),
    ("a value out of a closed set", ("model.head=conv",), ("head", "conv", "linear")),
    ("a preset that does not exist", ("method.ig.preset=papr",), ("papr", "paper")),
    ("a number in the place of a method's settings", ("method.ig=nan",), ("method.ig is nan", "~method.ig")),
    (
        "a word in the place of an evaluation's settings",
        ("evaluation.accuracy=yes",),
        ("evaluation.accuracy", "_target_"),
    ),
    ("nothing in the place of a logger's settings", ("logger.csv=null",), ("logger.csv is None", "_target_")),
    ("settings of a callback without a class", ("+callbacks.x={a: 1}",), ("callbacks.x", "without a class")),
    ("no callbacks at all", ("~callbacks",), ("no callbacks", "train.yaml")),
    ("no paths at all", ("~paths",), ("paths.output_dir", "train.yaml")),
    (
        "a number to optimise that the run cannot have",
        ("evaluation=accuracy", "optimise=influence/lds/lds_at_40"),
        ("optimise=influence/lds/lds_at_40", "add lds to evaluation"),
    ),
    (
        "a number to optimise of a method that is not in the run",
        ("method=ig", "evaluation=accuracy", "optimise=gradsim/accuracy/accuracy"),
        ("no method gradsim", "method=["),
    ),
    ("a method named twice", ("method=[ig,ig]",), ("ig", "twice")),
    ("an amount of memory without a number", ("memory_budget=lots",), ("memory_budget", "lots")),
    ("an amount of memory with an unknown unit", ("memory_budget=4GiBs",), ("memory_budget", "4GiBs")),
    ("no step on the path", ("method.ig.n_steps=0",), ("n_steps=0", "at least 1")),
    ("no neuron kept", ("evaluation.faithfulness.sufficiency=[0]",), ("r ≥ 1",)),
    ("a report of what is no run", ("report.of=nowhere",), ("nowhere", "no run's folder")),
    ("a comparison of one run", ("report.compare=[run]",), ("names 1 run", "2 to 8")),
    ("a comparison with what is no run", ("report.compare=[one,nowhere]",), ("one is no run's folder",)),
    ("two pages at once", ("report.of=run", "report.compare=[one,other]"), ("two pages", "one of them")),
    ("a machine of a plan that is not made", ("plan_for=A100-40GB",), ("plan_for=A100-40GB", "plan=true")),
    ("a machine that is not listed", ("plan=true", "plan_for=A100"), ("plan_for=A100", "A100-40GB", "machines.csv")),
    ("a site that does not exist", ("method.ig.site=head",), ("head", "attn", "both")),
    (
        "pre-activations of attention neurons",
        ("method=ig_reference", "method.ig_reference.site=attn"),
        ("site=attn", "preset=reference", "site=ffn"),
    ),
    (
        "a slip about FFN neurons, for attention neurons",
        ("method.ig.site=both", "method.ig.positions=broadcast_last"),
        ("site=both", "positions=broadcast_last", "site=ffn"),
    ),
    ("damping of zero", ("method=influence", "method.influence.damping=0"), ("damping=0", "above 0")),
    ("lists of no length", ("method=gradsim", "method.gradsim.top_k=0"), ("top_k",)),
    ("draws without a seed", ("method=random_neurons", "method.random_neurons.seeds=[]"), ("seeds=[]", "one seed")),
    (
        "lists shorter than a test needs",
        ("method=ig", "method.ig.top_k=50", "evaluation=faithfulness"),
        ("100 best neurons", "method.ig.top_k=50"),
    ),
    (
        "half precision without a GPU",
        ("trainer.accelerator=cpu", "trainer.precision=16-mixed"),
        ("trainer.precision=16-mixed", "bf16-mixed"),
    ),
    ("a required value that is not set", ("model=local",), ("model.path",)),
    ("an argument without =", ("tiny",), ("'tiny'", "model=tiny")),
    ("an unclosed bracket", ("tags=[a",), ("tags=[a",)),
    ("an unknown option", ("--multirn",), ("--multirn", "--multirun")),
    ("an option that is no setting either", ("--sede=3",), ("--sede=3", "sede=3")),
    ("several values without -m", ("seed=0,1",), ("seed=0,1", "-m")),
    ("one bad job of a sweep", ("-m", "seed=0,1", "model=pythia401m"), ("pythia401m",)),
    ("a split that is none", ("attribute_split=tests",), ("attribute_split", "tests")),
    ("fit=false without a classifier", ("fit=false",), ("fit=false", "model.path")),
    ("a reference to nothing", ("name=${nowhere}",), ("name", "nowhere")),
    ("a word that says nothing to prune", ("store.prune=yesterday",), ("store.prune=yesterday", "7d")),
    ("a fingerprint that is not stored", ("store.prune=0123456789",), ("0123456789", "store.list=true")),
    ("yes to nothing", ("yes=true",), ("yes=true", "store.prune=7d")),
    ("a value for the store itself", ("store=elsewhere",), ("store='elsewhere'", "paths.store")),
    (
        "a bridge whose source is no method of the run",
        ("method=[ig,gradsim_neurons]",),
        ("method.gradsim_neurons.source=gradsim", "method=[gradsim,ig,gradsim_neurons]"),
    ),
    (
        "a bridge from a method of the wrong kind",
        ("method=[gradsim,na_instances]", "method.na_instances.source=gradsim"),
        ("method.na_instances.source=gradsim", "a neuron method"),
    ),
    (
        "a bridge from a random method",
        ("method=[random_neurons,na_instances]", "method.na_instances.source=random_neurons"),
        ("method.na_instances.source=random_neurons", "ig"),
    ),
    (
        "a bridge from a bridge that has no train neurons",
        ("method=[ig,gradsim,gradsim_neurons,na_instances]", "method.na_instances.source=gradsim_neurons"),
        ("method.na_instances.source=gradsim_neurons", "ig"),
    ),
    (
        "lists shorter than a bridge reads",
        ("method=[ig,na_instances]", "method.ig.top_k=50", "evaluation=accuracy"),
        ("method.na_instances.train_list=100", "method.ig.top_k=50"),
    ),
    (
        "subsets of nothing",
        ("method=gradsim", "evaluation=retraining", "evaluation.retraining.fractions=[0,10]"),
        ("fractions=[0, 10]", "above 0"),
    ),
    (
        "subsets larger than the whole",
        ("method=gradsim", "evaluation=retraining", "evaluation.retraining.fractions=[120]"),
        ("fractions=[120]", "at most 100"),
    ),
    (
        "a series of too few subsets",
        ("method=gradsim", "evaluation=diversity_series", "evaluation.diversity_series.subsets_asked=5"),
        ("subsets_asked=5", "at least 7"),
    ),
    (
        "overlap of lists of no length",
        ("method=[gradsim,influence]", "evaluation=overlap", "evaluation.overlap.top=[0]"),
        ("evaluation.overlap", "at least 1"),
    ),
    ("a share beyond the whole", ("method=bm25", "method.bm25.b=2"), ("b=2", "from 0 to 1")),
    (
        "a solver that a curvature does not have",
        ("method=influence", "method.influence.curvature=kfac", "method.influence.solver=cg"),
        ("solver=cg", "curvature=kfac", "solver=direct"),
    ),
    (
        "gold targets where labels join several classes",
        ("data=demo_challenge", "method=ig", "explain=gold", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("explain=gold", "not supported", "explain=predicted"),
    ),
    (
        "a target inside a method",
        ("method=ig", "method.ig.target=gold"),
        ("method.ig.target=gold", "setting of the run", "write explain=gold"),
    ),
    (
        "explain inside a method",
        ("method=gradsim", "+method.gradsim.explain=gold"),
        ("method.gradsim.explain=gold", "setting of the run", "write explain=gold"),
    ),
    (
        "a class that does not exist",
        ("explain=suported", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("explain=suported", "names no class", "supported"),
    ),
    (
        "a target explained against itself",
        ("explain=supported", "explain_against=supported", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("explain_against=supported", "nothing is left to explain", "runner_up"),
    ),
    (
        "an empty target",
        ("explain=null", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("explain", "null"),
    ),
    (
        "a lens that there is not",
        ("explain={instance: gold, neurons: predicted}", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("neurons", "instance and neuron"),
    ),
    (
        "answers of data with classes",
        ("explain=answer", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("explain=answer", "next token", "gold"),
    ),
    (
        "a score that has no form for a difference",
        ("method=prob_increase", "explain_against=runner_up", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("prob_increase", "explain_against=runner_up", "logprob_increase"),
    ),
    (
        "pre-activations of a gated model",
        ("method=ig_reference", "evaluation=accuracy", "model.architecture.model_type=llama", *SMALL_DEMO[1:5]),
        ("preset=reference", "llama", "preset=paper"),
    ),
    (
        "epochs of a fit that is none",
        ("method=tracin", "evaluation=accuracy", "fit=false", "model=local", "model.path=checkpoint"),
        ("method=tracin", "fit=false", "fit=true"),
    ),
    (
        "epochs of a fit that is none, to unroll",
        ("method=source", "evaluation=accuracy", "fit=false", "model=local", "model.path=checkpoint"),
        ("method=source", "fit=false", "fit=true"),
    ),
    (
        "epochs of somebody else's training, whose steps are not known",
        (
            "method=source",
            "evaluation=accuracy",
            "fit=false",
            "model=local",
            "model.path=checkpoint",
            "checkpoints=[models/facts]",
        ),
        ("method=source", "learning rates of all steps", "fit=true"),
    ),
    (
        "training that takes no time",
        ("method=source", "method.source.rate_scale=0"),
        ("rate_scale=0", "above 0"),
    ),
    (
        "an unrolled head",
        ("method=source", "method.source.params=head", "method.source.projection=none"),
        ("params=head", "params=all projection=random"),
    ),
    (
        "a solve over layers finer than their numbers",
        ("method=influence_cg", "method.influence_cg.cg_tolerance=1e-9"),
        ("cg_tolerance=1e-09", "cg_tolerance=1e-3"),
    ),
    (
        "a curvature over layers that no steps serve",
        ("method=influence_cg", "method.influence_cg.curvature=hessian"),
        ("curvature=hessian", "curvature=ekfac"),
    ),
    (
        "layers that the model does not have",
        ("method=gradsim", "method.gradsim.params=*.nothing"),
        ("params=*.nothing", "matches no linear layer"),
    ),
    (
        "a projection of the head alone",
        ("method=gradsim", "method.gradsim.projection=random"),
        ("projection=random", "params=head", "params=all"),
    ),
    (
        "the whole curvature of all layers",
        ("method=influence", "method.influence.params=all"),
        ("curvature=ggn", "curvature=ekfac", "projection=random"),
    ),
    (
        "a curvature of stored rows without rows",
        ("method=influence", "method.influence.params=all", "method.influence.curvature=datainf"),
        ("curvature=datainf", "projection=random"),
    ),
    (
        "rows of tokens without rows",
        ("method=gradsim", "method.gradsim.params=all", "method.gradsim.per=token"),
        ("per=token", "projection=random"),
    ),
    (
        "a projection that keeps nothing",
        (
            "method=gradsim",
            "method.gradsim.params=all",
            "method.gradsim.projection=random",
            "method.gradsim.projection_dim=0",
        ),
        ("projection_dim=0", "at least 1"),
    ),
    (
        "a storage of rows for the head, which has none",
        ("method=gradsim", "method.gradsim.storage=half"),
        ("storage=half", "params=head", "projection=random"),
    ),
    (
        "a storage of rows where whole gradients pass by",
        ("method=influence_ekfac", "method.influence_ekfac.params=all", "method.influence_ekfac.storage=factored"),
        ("storage=factored", "projection=none", "projection=random"),
    ),
    (
        "factors that keep nothing",
        (
            "method=gradsim",
            "method.gradsim.params=all",
            "method.gradsim.projection=random",
            "method.gradsim.storage=factored",
            "method.gradsim.storage_rank=0",
        ),
        ("storage_rank=0", "at least 1"),
    ),
    (
        "a storage that there is not",
        (
            "method=gradsim",
            "method.gradsim.params=all",
            "method.gradsim.projection=random",
            "method.gradsim.storage=fp8",
        ),
        ("method.gradsim.storage", "fp8", "factored"),
    ),
]

UNDER_TORCHRUN = (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_WORLD_SIZE", "2"))
"""What `torchrun --nproc-per-node=2` says to the first of its processes."""
PROCESSES: list[Entry] = [
    (
        "other processes under torchrun than the Trainer's",
        ("trainer.devices=1", "method=gradsim", *SMALL_DEMO),
        ("torchrun has started 1 x 2", "trainer.devices=2"),
        None,
    ),
]
