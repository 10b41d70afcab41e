"""Command lines of all kinds, drawn from a seed: right, misspelt, mutilated, hostile.

`python -m tests.faults.fuzz_command_lines 5000 [FIRST]` tries them in one process and prints what became of them.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults.fuzzing import EVIL, Case, Scratch, in_this_process

GOOD = (
    "model=tiny", "model=gpt2", "model=local", "data=demo", "data=table", "data=mnli", "data=demo_choice",
    "method=ig", "method=[ig,gradsim]", "method=influence", "method=[]", "evaluation=accuracy", "evaluation=[]",
    "trainer=default", "trainer=ddp", "trainer=fsdp", "logger=none", "logger=wandb", "callbacks=early_stopping",
    "experiment=averitec_tiny", "experiment=unified/table1", "debug=fdr", "seed=3", "fit=false", "plan=true",
    "overwrite=true", "memory_budget=1GiB", "attribute_split=validation", "name=run", "tags=[a,b]",
    "method.ig.n_steps=3", "data.limit.test=4", "data.n_train=20", "trainer.max_epochs=1", "trainer.devices=2",
    "trainer.accelerator=cpu", "model.head=mlp", "model.learning_rate=1e-4", "paths.output_dir=out", "paths.store=st",
    "hydra.run.dir=outputs/x", "hydra.job.chdir=false", "hydra.verbose=true", "store.list=true", "store.prune=7d",
    "allow_targets=[mine]", "choices=all", "model.attention=eager", "data.template='{claim}'",
)  # fmt: skip
KEYS = (
    "seed", "fit", "method", "method.ig", "method.ig.n_steps", "method.nothing.top_k", "model", "model.path",
    "model.architecture", "model.architecture.num_hidden_layers", "model.trust_remote_code", "data", "data.path",
    "data.label_names", "trainer", "trainer.strategy", "trainer.callbacks", "trainer.profiler", "trainer.plugins",
    "trainer.default_root_dir", "logger.csv.name", "logger.csv._target_", "callbacks.x._target_", "method.ig._target_",
    "hydra.launcher", "hydra.sweeper.params", "hydra.callbacks", "hydra.job_logging", "hydra.searchpath", "hydra.mode",
    "hydra.sweep.subdir", "hydra.output_subdir", "paths", "paths.store", "store", "store.prune", "allow_targets",
    "memory_budget", "tags", "name", "", ".", "a..b", "data@x", "hydra/launcher", "hydra/job_logging", "no.such.key",
)  # fmt: skip
VALUES = (
    "", "null", "true", "1", "-1", "0", "1e999", "nan", ".inf", "9" * 5000, "0o17", "1_000", "12:30:00", "on", "~",
    "a,b", "1,2,3", "[1,2", "{a:1", "{a:{b:{c:d}}}", "[[[[[[1]]]]]]", "range(1,3)", "range(0,100000000000)",
    "choice(1,2)", "glob(*)", "interval(0,1)", "sort(3,1)", "shuffle(1,2)", "${seed}", "${nowhere}", "${oc.env:HOME}",
    "${oc.env:NO_SUCH_VARIABLE}", "${oc.decode:'1'}", "${now:%Y}", "${hydra:job.num}", "${data_name:${data}}", "${${",
    "\\${x}", "'quoted'", '"quoted"', "'", "\\", "../../outside/victim.txt", "/etc/passwd", "a/b", "..", "file://x",
    "pkg://antigravity", "[pkg://os]", "[file://nowhere]", "os.system", f"{EVIL}.Thing", "lightning.os.system",
    "twinlens.callbacks.sweep.job_process.run_as_process", "{_target_:os.system}", "x" * 300, "é", "\u202e", "\u2028",
    "\U0001f600", "\0",
    "a b", "a=b", "a:b", "???", "<<", "=", "hf_" + "a" * 30, "!!python/object", "${.a}", "${..b}",
    "kernels-community/x",
)  # fmt: skip
OPTIONS = (
    ("-m",), ("--multirun",), ("--cfg", "job"), ("--cfg", "nothing"), ("--info",), ("--info", "all"), ("--help",),
    ("--version",), ("--resolve",), ("-p", "model"), ("--config-name", "train"), ("--config-name", "nothing"),
    ("--config-name", "../conf/train"), ("--config-dir", "nowhere"), ("--config-dir", "."), ("--config-path", "."),
    ("--experimental-rerun", "x.pickle"), ("--seed=3",), ("--",), ("-x",), ("--config-dir",), ("--run",),
)  # fmt: skip


def generate(seed: int) -> Case:
    """The command line of a seed."""
    draw = random.Random(seed)
    arguments: list[str] = []
    for _ in range(draw.randint(0, 5)):
        kind = draw.random()
        if kind < 0.45:
            arguments.append(draw.choice(GOOD))
        elif kind < 0.8:
            sign = draw.choice(("", "", "", "+", "++", "~"))
            arguments.append(f"{sign}{draw.choice(KEYS)}={draw.choice(VALUES)}")
        else:
            arguments.append(mutilated(draw.choice(GOOD), draw))
    if draw.random() < 0.3:
        position = draw.choice((0, len(arguments), draw.randint(0, len(arguments))))
        arguments[position:position] = draw.choice(OPTIONS)
    return Case(tuple(arguments))


def mutilated(text: str, draw: random.Random) -> str:
    """A text with one to three signs removed, doubled, exchanged or replaced."""
    signs = list(text)
    for _ in range(draw.randint(1, 3)):
        place = draw.randrange(len(signs)) if signs else 0
        kind = draw.randrange(3)
        if kind == 0 and signs:
            del signs[place]
        elif kind == 1:
            signs.insert(place, draw.choice("[]{}(),:=.'\"\\$~+@/ \tx\n\ud800"))
        elif signs:
            signs[place] = draw.choice("abcxyz019_-*?")
    return "".join(signs)


def cases(first: int, count: int) -> Iterator[tuple[int, Case]]:
    """The cases of consecutive seeds."""
    return ((seed, generate(seed)) for seed in range(first, first + count))


def main(count: int, first: int = 0) -> int:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Scratch(Path(folder))
        os.chdir(scratch.work)
        sys.path.append(str(scratch.modules))
        tally = in_this_process(cases(first, count), scratch, lambda line: print(line, flush=True))
        os.chdir("/")
    print(count, dict(tally.counts), *tally.defects[:20], sep="\n")
    return bool(tally.defects)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
