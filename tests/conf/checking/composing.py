"""Hydra's compose API as train.py passes it to the checks, and a small config tree to try it on."""

from __future__ import annotations

from pathlib import Path

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig

TREE = {
    "train.yaml": """
defaults:
  - model: tiny
  - data: demo
  - method: [ig]
  - hydra: default
  - experiment: null
  - debug: null
  - _self_
seed: 0
fit: true
overwrite: false
memory_budget: 4GiB
attribute_split: test
allow_targets: []
name: ${hydra:runtime.choices.model}
tags: []
""",
    "model/tiny.yaml": "name: tiny\npath: null\n",
    "model/pythia410m.yaml": "name: pythia410m\npath: hub/pythia\n",
    "data/demo.yaml": "name: demo\nlimit: {train: 8, test: 4}\n",
    "data/table.yaml": "name: table\npath: ???\n",
    "method/ig.yaml": "# @package method.ig\n_target_: tests.conf.checking.shapes.Method\n"
    "n_steps: 20\nlayers: [0, 1]\n",
    "method/ig_copy.yaml": "# @package method.ig\n_target_: tests.conf.checking.shapes.Method\n",
    "method/gradsim.yaml": "# @package method.gradsim\n_target_: tests.conf.checking.shapes.Inner\nsize: 3\n",
    "experiment/twice.yaml": "# @package _global_\ndefaults:\n  - override /method: [ig, ig]\n",
    "experiment/gone.yaml": "# @package _global_\ndefaults:\n  - override /model: tiney\n",
    "experiment/typo.yaml": "# @package _global_\nsede: 3\n",
    "experiment/broken.yaml": "# @package _global_\nseed: [1\nfit: true\n",
    "experiment/good.yaml": "# @package _global_\ndefaults:\n  - override /method: [ig, gradsim]\nseed: 3\n",
    "experiment/paper/all.yaml": """# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      method: ig,gradsim
""",
    "debug/fdr.yaml": "# @package _global_\nseed: 1\n",
    "hydra/default.yaml": """
run:
  dir: outputs/runs/${model.name}_${data.name}_s${seed}
sweep:
  dir: outputs/sweeps/one
  subdir: ${hydra.job.num}
job:
  chdir: false
""",
}


def write_tree(folder: Path, files: dict[str, str] | None = None) -> Path:
    """Write a config tree; returns its folder."""
    for name, text in (TREE if files is None else files).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def compose(folder: Path, primary: str, overrides: list[str]) -> DictConfig:
    with initialize_config_dir(str(folder), version_base="1.3", job_name="train"):
        return hydra_compose(primary, overrides, return_hydra_config=True)


parse = OverridesParser.create().parse_overrides
