"""Configurations as strangers may hand them on, drawn from a seed: hostile nodes, broken YAML, bombs.

`python -m tests.faults.fuzz_configurations 5000 [FIRST]` tries them in one process and prints what became of them.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tests.faults.fuzzing import EVIL, Case, Scratch, in_this_process

STARTS: tuple[Any, ...] = (
    ["train", "_self_"], ["_self_", "train"], [{"hydra": "default"}, "_self_"], ["_self_"],
    ["train", {"override /method": ["ig"]}, "_self_"], ["train", {"override hydra/launcher": "basic"}, "_self_"],
    ["train", {"other@paths": "other"}, "_self_"], ["train", {"other@hydra": "other"}, "_self_"],
    ["train", {"other@_global_": "other"}, "_self_"], ["train", "../../outside/victim", "_self_"],
    ["${oc.env:HOME}", "train"], ["train", {"model": "${oc.env:HOME}"}, "_self_"], ["config"], "train", 5, [[]],
)  # fmt: skip
TARGETS = (
    "os.system", f"{EVIL}.Thing", f"{EVIL}.call", "subprocess.Popen", "builtins.exec", "lightning.os.system",
    "lightning.pytorch.callbacks.model_checkpoint.os.remove", "torch.os.system", "torch.load", "torch.hub.load",
    "twinlens.data.text_data_module.torch.load", "twinlens.callbacks.sweep.job_process.run_as_process",
    "twinlens.callbacks.store.files.remove_partial_files",
    "twinlens.callbacks.store.files.Path", "twinlens.callbacks.store.store.Store",
    "twinlens.callbacks.run.folder.RunFolder", "twinlens.callbacks.passes.predict_pass.ShardWriter",
    "lightning.pytorch.callbacks.ModelCheckpoint", "lightning.pytorch.callbacks.LambdaCallback",
    "lightning.pytorch.callbacks.EarlyStopping", "lightning.pytorch.callbacks.OnExceptionCheckpoint",
    "lightning.pytorch.loggers.CSVLogger", "lightning.pytorch.loggers.TensorBoardLogger",
    "lightning.pytorch.profilers.SimpleProfiler", "lightning.pytorch.profilers.PyTorchProfiler",
    "lightning.pytorch.Trainer", "lightning.pytorch.Trainer.fit", "lightning.pytorch.cli.LightningCLI",
    "lightning.pytorch.LightningModule.load_from_checkpoint", "torch.nn.Linear", "torch.optim.SGD",
    "torchmetrics.MeanMetric", "twinlens.attribution.instance.gradsim.GradientSimilarity",
    "twinlens.attribution.neuron.ig",
    "twinlens.attribution.neuron.ig.IntegratedGradients", "twinlens.attribution.instance.protocol.InstanceMethod",
    "twinlens.attribution.evaluation.accuracy.Accuracy", "twinlens.models.module.TextClassifier",
    "twinlens.data.demo.DemoDataModule",
    "twinlens.models.module.TextClassifier.load_from_checkpoint", "hydra.utils.instantiate", "hydra.utils.call", "..",
    "a",
    "__main__.x", "torch.__init__.os", "${name}", "${.sibling}", "", 5, None, ["os.system"], {"a": 1},
)  # fmt: skip
TEXTS = (
    "../../outside/victim.txt", "../outside", "/tmp/elsewhere", "victim", "..", ".", "~", "a\\b", "a\0b", "con",
    "x" * 400, "${oc.env:HOME}", "${oc.env:HF_TOKEN,none}", "${oc.decode:${name}}", "${${name}:HOME}", "${now:%f}",
    "${hydra:runtime.cwd}", "${oc.create:'a: 1'}", "${data_name:${data}}", "${nowhere}", "${method}", "${.}", "${..a}",
    "\\${oc.env:HOME}", "${", "kernels-community/flash-attn", "ext://os.environ", "cfg://handlers", "https://host/x",
    "hf_" + "a" * 30, "1E50", "0o17", "on", "null", "???", "é\u2028", "train", "ig", "true", "pkg://antigravity",
)  # fmt: skip
NUMBERS = (0, 1, -1, 10**7, 10**18, 10**400, 1e308, float("inf"), float("nan"), True, None)
PLACES = (
    "method.evil", "method.ig", "method.../../escaped", "method.ig.n_steps", "callbacks.evil", "callbacks.evil.dirpath",
    "logger.csv", "logger.evil", "logger.csv.name", "evaluation.evil", "evaluation.accuracy", "model", "model.name",
    "model.path", "model.attention", "model.architecture", "model.architecture.num_hidden_layers",
    "model.trust_remote_code", "data", "data.name", "data.path", "data.label_names", "trainer", "trainer.callbacks",
    "trainer.logger", "trainer.strategy", "trainer.plugins", "trainer.profiler", "trainer.default_root_dir", "paths",
    "paths.store", "paths.output_dir", "hydra", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir",
    "hydra.launcher", "hydra.sweeper", "hydra.sweeper.params", "hydra.sweeper.params.seed", "hydra.mode",
    "hydra.callbacks.evil", "hydra.job_logging", "hydra.job_logging.handlers.h", "hydra.hydra_logging.formatters.f",
    "hydra.job_logging.root.handlers", "hydra.job.env_set.LD_PRELOAD", "hydra.job.env_copy", "hydra.job.chdir",
    "hydra.job.name", "hydra.output_subdir", "hydra.searchpath", "hydra.help.template", "hydra.verbose",
    "allow_targets", "store.prune", "store.list", "seed", "fit", "name", "tags", "memory_budget", "attribute_split",
    "choices", "anything", "defaults", "debug", "experiment",
)  # fmt: skip
SPECIALS: tuple[tuple[str, Any], ...] = (
    ("_partial_", True), ("_recursive_", False), ("_convert_", "object"), ("_args_", ["x", True]), ("_args_", 5),
    ("dirpath", "../../outside"), ("save_dir", "../../outside"), ("filename", "../victim"), ("mode", "w"),
    ("class", "logging.FileHandler"), ("()", "os.system"), ("filename", "victim.txt"), ("trust_remote_code", True),
    ("_target_", "os.system"), ("folder", "../../outside"), ("pattern", "*"), ("path", "../../outside"),
    ("pickle_module", f"{EVIL}"), ("monitor", "x"), ("version", "../.."), ("name", ".."), ("params", {"seed": "1,2"}),
)  # fmt: skip
RAW = (
    "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a]\n"
    "c: &c [*b, *b, *b, *b, *b, *b, *b, *b]\n"
    "d: &d [*c, *c, *c, *c, *c, *c, *c, *c]\ne: &e [*d, *d, *d, *d, *d, *d, *d, *d]\nf: [*e, *e, *e, *e, *e, *e, *e]\n",
    "a: &a [*a]\n", "tags: " + "[" * 2000 + "]" * 2000 + "\n", "name: '" + "x" * 300_000 + "'\n",
    "name: ${a0}\n" + "".join(f"a{n}: ${{a{n + 1}}}${{a{n + 1}}}\n" for n in range(40)) + "a40: xxxxxxxx\n",
    "name: ${tags}\ntags: ['${name}']\n", "name: ${name}\n", "!!python/object/apply:os.system ['touch ran']\n",
    "name: !!python/name:os.system\n", "name: !!binary aGVsbG8=\n", "? [a, b]\n: c\n", "seed: [1\n", "\t\n", "", "[]\n",
    "5\n", "name: a\nname: b\n", "%YAML 1.1\n---\nseed: 1\n---\nseed: 2\n", "seed: 0x10\n",
    "seed: " + "9" * 5000 + "\n",
    "# @package paths\nstore: ../../outside\n", "# @package hydra\nrun: {dir: ../../outside}\n", "\ufeffseed: 1\n",
    "# @package ../..\nseed: 1\n", "name: \ud800\n", "name: \0\n", "<<: {seed: 1}\n", "seed: 1\n<<: *nothing\n",
)  # fmt: skip
ENDS = (
    (), (), (), ("seed=1",), ("method.ig.n_steps=2",), ("paths.output_dir=outputs",), ("-m", "seed=0,1"),
    ("--cfg", "job"), ("allow_targets=[mine]",), ("name=x",), ("+hydra.callbacks={}",), ("model=gpt2",),
)  # fmt: skip


def generate(seed: int) -> Case:
    """The configuration of a seed, and the command line that reads it."""
    draw = random.Random(seed)
    if draw.random() < 0.15:
        text = "defaults: [train, _self_]\n" * draw.randint(0, 1) + draw.choice(RAW)
    else:
        content: dict[str, Any] = {"defaults": draw.choice(STARTS)} if draw.random() < 0.95 else {}
        for _ in range(draw.randint(1, 3)):
            put(content, draw.choice(PLACES), value(draw), draw)
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=draw.random() < 0.5)
    files = {"run/config.yaml": text}
    if "other" in text:
        files["run/other/other.yaml"] = yaml.safe_dump({draw.choice(("store", "run", "seed", "name")): value(draw)})
    folder = draw.choice((("--config-dir", "run"),) * 6 + (("--config-path", str(Path.cwd() / "run")),))
    return Case((*folder, "--config-name", "config", *draw.choice(ENDS)), files)


def value(draw: random.Random, depth: int = 0) -> Any:
    """A scalar, a list or a node of some class."""
    kind = draw.random()
    if kind < 0.3 or depth > 3:
        return draw.choice(TEXTS)
    if kind < 0.4:
        return draw.choice(NUMBERS)
    if kind < 0.5:
        return [value(draw, depth + 1) for _ in range(draw.randint(0, 3))]
    if kind < 0.6:
        return {str(draw.choice(TEXTS))[:20]: value(draw, depth + 1)}
    node: dict[str, Any] = {"_target_": draw.choice(TARGETS)}
    for _ in range(draw.randint(0, 2)):
        name, given = draw.choice(SPECIALS)
        node[name] = value(draw, depth + 1) if draw.random() < 0.3 else given
    return node


def put(content: dict[str, Any], place: str, given: Any, draw: random.Random) -> None:
    """Write a value at a dotted place; what stands in the way gives way."""
    group, _, rest = place.partition(".")
    parts = [group, rest] if group == "method" and ".." in rest else place.split(".")
    inner = content
    for part in parts[:-1]:
        if not isinstance(inner.get(part), dict):
            inner[part] = {}
        inner = inner[part]
    if isinstance(given, dict) and isinstance(inner.get(parts[-1]), dict) and draw.random() < 0.5:
        inner[parts[-1]].update(given)
    else:
        inner[parts[-1]] = given


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
