"""Bad inputs and faults, one entry each: what is tried, with which files and arguments, and what must be said.

`tests/test_errors_table.py` tries them all; `docs/errors.md` is the table of what it saw.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.running import SMALL_DEMO

Make = Callable[[Path, Path], object]
"""(working directory, a trained classifier of the demo's labels) → writes what the command reads."""


@dataclass(frozen=True)
class BadInput:
    """Something that a command is refused for.

    Attributes:
        section: heading in docs/errors.md.
        what: what is wrong, in words.
        arguments: of `python train.py`.
        told: parts that the message must hold.
        make: writes the files it needs.
        running: found only while the run goes on, so that it has written its configuration by then.
    """

    section: str
    what: str
    arguments: tuple[str, ...]
    told: tuple[str, ...]
    make: Make | None = None
    running: bool = False


GOOD = [json.dumps({"premise": f"p {n}", "hypothesis": f"h {n}", "label": "yes" if n % 2 else "no"}) for n in range(20)]
MNLI = ("data=mnli", "data.path=set")
COSQA = ("data=cosqa", "data.path=set", "data.validation_size=1")
TABLE = ("data=table", "method=gradsim", "evaluation=accuracy")
FILE = (*TABLE, "data.path=data.jsonl")
LOCAL = ("model=local", "model.path=checkpoint")
AS_IT_IS = ("fit=false", *LOCAL, *SMALL_DEMO)
REPLAY = ("--config-dir", "run", "--config-name", "config")
START = "defaults: [train, _self_]\n"


def row(premise: object, hypothesis: object, label: object) -> str:
    return json.dumps({"premise": premise, "hypothesis": hypothesis, "label": label})


# -- files -------------------------------------------------------------------------------------------------------


def lines(*rows: str, name: str = "data.jsonl") -> Make:
    """A text file of these lines."""
    return lambda folder, trained: (folder / name).write_text("".join(f"{line}\n" for line in rows), encoding="utf-8")


def content(data: bytes, name: str) -> Make:
    return lambda folder, trained: (folder / name).write_bytes(data)


def split_folder(**splits: Iterable[str]) -> Make:
    """A folder `set` with one JSONL file per split."""

    def make(folder: Path, trained: Path) -> None:
        (folder / "set").mkdir()
        for split, rows in splits.items():
            (folder / "set" / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in rows), encoding="utf-8")

    return make


def checkpoint(change: Callable[[Path], object] | None = None) -> Make:
    """A trained classifier in `checkpoint`, changed."""

    def make(folder: Path, trained: Path) -> None:
        copy = shutil.copytree(trained, folder / "checkpoint")
        if change is not None:
            change(copy)

    return make


def edited(**values: object) -> Callable[[Path], object]:
    """Changes of a checkpoint's config.json; None removes a key."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        config = {**json.loads(file.read_text()), **values}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return change


def cut(name: str) -> Callable[[Path], object]:
    """The first half of one of a checkpoint's files."""

    def change(folder: Path) -> None:
        file = folder / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return change


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".layers.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def weights_elsewhere(folder: Path) -> None:
    """An index of weights that names a file outside the checkpoint."""
    weights = folder / "model.safetensors"
    names = dict.fromkeys(load_file(weights), "../elsewhere.safetensors")
    weights.rename(folder.parent / "elsewhere.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def config_file(text: str, name: str = "config") -> Make:
    """A configuration from somebody else in the folder `run`."""

    def make(folder: Path, trained: Path) -> None:
        (folder / "run").mkdir()
        (folder / "run" / f"{name}.yaml").write_text(text, encoding="utf-8")

    return make


def mnli(train: int = 0, matched: int = 12) -> Make:
    """A folder `set` with MNLI's matched validation file and, for a number of rows, its train file."""

    def make(folder: Path, trained: Path) -> None:
        (folder / "set").mkdir()
        for name, n in (("train", train), ("dev_matched", matched)):
            rows = [f"p {row}\th {row}\t{('entailment', 'neutral', 'contradiction')[row % 3]}" for row in range(n)]
            if n:
                text = "\n".join(["sentence1\tsentence2\tgold_label", *rows, ""])
                (folder / "set" / f"{name}.tsv").write_text(text, encoding="utf-8")

    return make


def questions(choices: int, letter: str = "A") -> Make:
    """A folder `set` with CommonsenseQA files; the last question has that many choices, the first of them so called."""

    def question(n: int, first: str) -> str:
        named = [{"label": label, "text": label} for label in [first, *"BCDEFGH"[: n - 1]]]
        return json.dumps({"answerKey": "B", "question": {"stem": "q", "question_concept": "c", "choices": named}})

    def make(folder: Path, trained: Path) -> None:
        (folder / "set").mkdir()
        for name in ("train", "dev"):
            rows = [question(5, "A")] * 4 + [question(choices, letter)]
            (folder / "set" / f"{name}_rand_split.jsonl").write_text("\n".join(rows), encoding="utf-8")

    return make


# -- the list ----------------------------------------------------------------------------------------------------

SETTINGS = [
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
    ("a word where yes or no belongs", ("fit=maybe",), ("fit", "maybe", "true or false")),
    ("a value out of a closed set", ("model.head=conv",), ("head", "conv", "linear")),
    ("a preset that does not exist", ("method.ig.preset=papr",), ("papr", "paper")),
    ("a method named twice", ("method=[ig,ig]",), ("ig", "twice")),
    ("an amount of memory without a number", ("memory_budget=lots",), ("memory_budget", "lots")),
    ("an amount of memory with an unknown unit", ("memory_budget=4GiBs",), ("memory_budget", "4GiBs")),
    ("no step on the path", ("method.ig.n_steps=0",), ("n_steps=0", "at least 1")),
    ("no neuron kept", ("evaluation.faithfulness.sufficiency=[0]",), ("r ≥ 1",)),
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
    ("an option where a setting belongs", ("--seed=3",), ("--seed=3", "seed=3")),
    ("several values without -m", ("seed=0,1",), ("seed=0,1", "-m")),
    ("one bad job of a sweep", ("-m", "seed=0,1", "model=pythia401m"), ("pythia401m",)),
    ("a split that is none", ("attribute_split=tests",), ("attribute_split", "tests")),
    ("fit=false without a classifier", ("fit=false",), ("fit=false", "model.path")),
    ("a reference to nothing", ("name=${nowhere}",), ("name", "nowhere")),
    ("a word that says nothing to prune", ("store.prune=yesterday",), ("store.prune=yesterday", "7d")),
    ("a fingerprint that is not stored", ("store.prune=0123456789",), ("0123456789", "store.list=true")),
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
        ("data=demo_challenge", "method=ig", "method.ig.target=gold", "evaluation=accuracy", *SMALL_DEMO[1:5]),
        ("method.ig.target=gold", "not supported", "target=predicted"),
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
]

DATA: list[tuple[str, tuple[str, ...], tuple[str, ...], Make | None]] = [
    ("a table without a path", ("data=table",), ("data.path",), None),
    ("a file that does not exist", ("data=table", "data.path=nowhere.csv"), ("nowhere.csv",), None),
    ("a folder that does not exist", ("data=averitec", "data.path=nowhere"), ("nowhere",), None),
    ("a suffix that names no format", (*TABLE, "data.path=data.xlsx"), ("'.xlsx'", ".csv"), content(b"x", "data.xlsx")),
    ("an empty file", FILE, ("data.jsonl", "no row"), lines()),
    ("a broken JSON line", FILE, ("data.jsonl:4", "JSON"), lines(*GOOD[:3], '{"premise": "broken', *GOOD[3:])),
    ("a JSON line that is no object", FILE, ("data.jsonl:3", "list"), lines(*GOOD[:2], "[1, 2]", *GOOD[2:])),
    (
        "a JSON file that is no list",
        (*TABLE, "data.path=data.json"),
        ("data.json", "list"),
        lines("{}", name="data.json"),
    ),
    (
        "a CSV line with a cell too many",
        (*TABLE, "data.path=data.csv"),
        ("data.csv:3", "4 cells", "3"),
        lines("premise,hypothesis,label", "a,b,yes", "a,b,no,more", name="data.csv"),
    ),
    (
        "text that is not UTF-8",
        (*TABLE, "data.path=data.csv"),
        ("UTF-8",),
        content(b"premise,label\n\xff\xfe,a\n", "data.csv"),
    ),
    (
        "a Parquet file that is none",
        (*TABLE, "data.path=data.parquet"),
        ("data.parquet", "Parquet"),
        content(b"PAR1 no table", "data.parquet"),
    ),
    (
        "a label that is not among the given ones",
        (*FILE, "data.label_names=[yes,no]"),
        ("row 20", "perhaps", "yes, no"),
        lines(*GOOD, row("p", "h", "perhaps")),
    ),
    ("an empty label", FILE, ("row 4", "empty label"), lines(*GOOD[:4], row("p", "h", ""), *GOOD[4:])),
    (
        "text columns that the file does not have",
        (*FILE, "data.text=[premise,conclusion]"),
        ("conclusion", "hypothesis"),
        lines(*GOOD),
    ),
    ("a label column that the file does not have", (*FILE, "data.label=gold"), ("gold", "label"), lines(*GOOD)),
    ("a cell that is no text", FILE, ("row 2", "list", "premise"), lines(*GOOD[:2], row(["p"], "h", "no"), *GOOD[2:])),
    ("an example without a token", FILE, ("Row 5", "token"), lines(*GOOD[:5], row("", " ", "yes"), *GOOD[5:])),
    (
        "an empty split",
        (*TABLE, "data.path=set"),
        ("test", "empty"),
        split_folder(train=GOOD, validation=GOOD, test=[]),
    ),
    (
        "a folder without a train, validation or test file",
        (*TABLE, "data.path=set"),
        ("set", "train"),
        split_folder(rows=GOOD),
    ),
    (
        "training data that are absent",
        (*TABLE, "data.path=set"),
        ("train",),
        split_folder(test=GOOD),
    ),
    ("a table too small to be split", FILE, ("validation", "data.validation_fraction"), lines(*GOOD[:3])),
    ("a limit of no row", ("data.limit.test=0",), ("data.limit.test=0", "at least 1"), None),
    ("a row outside the split", ("data.select.test=[3,9999]",), ("data.select.test", "9999"), None),
    ("a row selected twice", ("data.select.test=[3,3]",), ("data.select.test", "twice"), None),
    ("a template with an unknown field", ("data.template='{claim} {evidenc}'",), ("evidenc", "evidence"), None),
    ("a template with an open brace", ("data.template='{claim'",), ("data.template", "braces"), None),
    ("a template that does not exist", ("data.template=short",), ("'short'", "reference"), None),
    ("a length of no token", ("data.max_length=0",), ("data.max_length=0", "at least 1"), None),
    (
        "AVeriTeC files of another schema",
        ("data=averitec", "data.path=set", "data.validation_size=1"),
        ("train.json row", "claim"),
        lambda folder, trained: [
            (folder / "set").mkdir(),
            (folder / "set" / "train.json").write_text('[{"text": "a"}, {"text": "b"}]'),
            (folder / "set" / "dev.json").write_text('[{"text": "a"}]'),
        ],
    ),
    ("MNLI without its train file", MNLI, ("train.tsv", "data.split_validation=true"), mnli()),
    ("a sample larger than the data", MNLI, ("10000 (train)", "30 labelled ones"), mnli(train=30)),
    (
        "splits larger than the validation set they are cut from",
        (*MNLI, "data.split_validation=true"),
        ("data.split_sizes", "6000 (train)", "12 labelled ones"),
        mnli(),
    ),
    ("HANS without its file", (*MNLI, "data.test=hans"), ("data.test_path=null", "data.test_path=FILE"), mnli(30)),
    (
        "a file that is not of HANS",
        (*MNLI, "data.train_size=9", "data.validation_size=9", "data.test=hans", "data.test_path=set/train.tsv"),
        ("train.tsv row 0", "heuristic, subcase, template"),
        mnli(30),
    ),
    ("a challenge set that does not exist", (*MNLI, "data.test=hams"), ("data.test", "hams", "hans"), None),
    ("a question with a choice too few", COSQA, ("4 choices", "expected 5"), questions(4)),
    ("choices that are not called A, B, …", COSQA, ("row 4", "labelled A, B, …"), questions(5, "1")),
    ("a question of a single choice", ("data=demo_choice", "data.n_choices=1"), ("data.n_choices=1", "from 2"), None),
]

CHECKPOINTS: list[tuple[str, tuple[str, ...], tuple[str, ...], Make | None]] = [
    ("a checkpoint that does not exist", ("model=local", "model.path=nowhere"), ("model.path=nowhere",), None),
    ("a folder without config.json", LOCAL, ("checkpoint", "config.json"), checkpoint(without("config.json"))),
    ("a folder without weights", LOCAL, ("checkpoint", "no weights"), checkpoint(without("model.safetensors"))),
    ("weights in a pickle", LOCAL, ("pytorch_model.bin", "pickle", "model.safetensors"), checkpoint(pickled)),
    ("truncated weights", LOCAL, ("model.safetensors", "truncated"), checkpoint(cut("model.safetensors"))),
    (
        "an index of weights that leaves its folder",
        LOCAL,
        ("model.safetensors.index.json", "../elsewhere.safetensors"),
        checkpoint(weights_elsewhere),
    ),
    ("a truncated config.json", LOCAL, ("checkpoint", "config.json"), checkpoint(cut("config.json"))),
    ("a truncated tokenizer", LOCAL, ("checkpoint", "tokenizer.json"), checkpoint(cut("tokenizer.json"))),
    (
        "a config.json of an unknown architecture",
        LOCAL,
        ("checkpoint", "mystery"),
        checkpoint(edited(model_type="mystery")),
    ),
    ("a config.json with text for a number", LOCAL, ("checkpoint",), checkpoint(edited(hidden_size="wide"))),
    (
        "another architecture than the model's",
        ("model=gpt2", "model.path=checkpoint"),
        ("gpt_neox", "gpt2"),
        checkpoint(),
    ),
    (
        "an architecture without a decoder",
        ("fit=false", *LOCAL),
        ("checkpoint",),
        checkpoint(edited(model_type="bert", architectures=["BertModel"])),
    ),
    (
        "a language model without a classification head, with fit=false",
        ("fit=false", *LOCAL),
        ("no classification head", "fit=true"),
        checkpoint(edited(architectures=["GPTNeoXForCausalLM"])),
    ),
    (
        "a classifier of other labels, with fit=false",
        ("fit=false", *LOCAL, *FILE, "data.label_names=[yes,no]"),
        ("[yes, no]", "supported"),
        lambda folder, trained: [checkpoint()(folder, trained), lines(*GOOD)(folder, trained)],
    ),
    (
        "a multiple-choice model on labelled texts, with fit=false",
        ("fit=false", *LOCAL, *SMALL_DEMO[1:5]),
        ("one score per sequence", "supported", "fit=true"),
        checkpoint(edited(id2label={"0": "score of the choice"}, label2id={"score of the choice": 0})),
    ),
    (
        "a classifier of labels on questions, with fit=false",
        ("fit=false", *LOCAL, "data=demo_choice", *SMALL_DEMO[1:5]),
        ("supported", "multiple choice", "one score per sequence"),
        checkpoint(),
    ),
    (
        "activations of a train split that is not there",
        (
            "fit=false",
            *LOCAL,
            "data=table",
            "data.path=set",
            "data.label=null",
            "method=ig",
            "evaluation=faithfulness",
            "evaluation.faithfulness.intervention=mean",
            "evaluation.faithfulness.reference=train",
        ),
        ("intervention=mean", "train split, which has 0", "reference=explained"),
        lambda folder, trained: [checkpoint()(folder, trained), split_folder(test=GOOD)(folder, trained)],
    ),
    (
        "HANS with a model that knows no entailment",
        ("fit=false", *LOCAL, *MNLI, "data.test=hans", "data.test_path=hans.txt"),
        ("supported", "entailment, neutral, contradiction", "fit=true"),
        checkpoint(),
    ),
    (
        "a checkpoint that asks to run its own code",
        LOCAL,
        ("trust_remote_code",),
        checkpoint(edited(model_type="mystery", auto_map={"AutoConfig": "code.Config"})),
    ),
    ("a folder without tokenizer.json", LOCAL, ("checkpoint",), checkpoint(without("tokenizer.json"))),
]

STRANGERS: list[tuple[str, tuple[str, ...], tuple[str, ...], Make | None]] = [
    (
        "a folder of configurations that does not exist",
        ("--config-dir", "nowhere", "--config-name", "config"),
        ("nowhere",),
        None,
    ),
    ("a folder of configurations without that file", REPLAY, ("config", "run"), config_file(START, name="other")),
    ("a configuration that is no YAML", REPLAY, ("config.yaml", "YAML"), config_file(START + "seed: [1\n")),
    ("an unknown key in a file", REPLAY, ("sede", "seed"), config_file(START + "sede: 1\n")),
    (
        "a choice by name in a run that is repeated",
        (*REPLAY, "model=gpt2"),
        ("repeats a run", "model.KEY=VALUE"),
        config_file("defaults: [{hydra: default}, _self_]\nseed: 0\nmodel: {name: tiny}\n"),
    ),
    (
        "a class outside the allowed packages",
        REPLAY,
        ("method.ig._target_=os.system", "allow_targets"),
        config_file(START + "method: {ig: {_target_: os.system}}\n"),
    ),
    (
        "a function that an allowed module has imported",
        REPLAY,
        ("data.base.json.loads", "not allowed"),
        config_file(START + "data: {_target_: data.base.json.loads}\n"),
    ),
    (
        "a class of Hydra's own that runs programs",
        REPLAY,
        ("subprocess.Popen", "not allowed"),
        config_file(START + "hydra: {launcher: {_target_: subprocess.Popen}}\n"),
    ),
    (
        "environment variables in a file",
        REPLAY,
        ("hydra.job.env_set",),
        config_file(START + "hydra: {job: {env_set: {LD_PRELOAD: x.so}}}\n"),
    ),
    (
        "a file that allows itself a package",
        REPLAY,
        ("not allowed",),
        config_file(START + "allow_targets: [os]\nmethod: {ig: {_target_: os.system}}\n"),
    ),
    (
        "a file that trusts a checkpoint's code",
        REPLAY,
        ("model.trust_remote_code", "command line"),
        config_file(START + "model: {trust_remote_code: true}\n"),
    ),
    ("a file that clears the store", REPLAY, ("store.prune=all",), config_file(START + "store: {prune: all}\n")),
    ("a pickle of Hydra's", ("--experimental-rerun=config.pickle",), ("pickle",), None),
]

WHILE_RUNNING: list[tuple[str, tuple[str, ...], tuple[str, ...], Make | None]] = [
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
    ("weights that are not finite", AS_IT_IS, ("NaN or infinite", "index"), checkpoint(not_finite)),
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
            "method.ig.target=gold",
            "evaluation=uniqueness",
        ),
        ("target=gold", "needs a label"),
        lambda folder, trained: [checkpoint()(folder, trained), lines(*GOOD)(folder, trained)],
    ),
    (
        "a solver that fits no memory",
        (*AS_IT_IS, "method=influence", "evaluation=accuracy", "memory_budget=1KiB"),
        ("memory budget", "data.limit.train"),
        checkpoint(),
    ),
    (
        "a store where there is a file",
        (*AS_IT_IS, "method=gradsim", "evaluation=accuracy", "paths.store=taken/store"),
        ("store", "paths.store=DIR"),
        lambda folder, trained: [checkpoint()(folder, trained), (folder / "taken").write_text("")],
    ),
]

BAD_INPUTS = [
    *(BadInput("Settings", *entry) for entry in SETTINGS),
    *(BadInput("Data", *entry) for entry in DATA),
    *(BadInput("Checkpoints", *entry) for entry in CHECKPOINTS),
    *(BadInput("Configurations from somebody else", *entry) for entry in STRANGERS),
    *(BadInput("Found while running", *entry, running=True) for entry in WHILE_RUNNING),
]
