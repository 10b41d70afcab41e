"""Golden scores: one tiny run per readout, its settings, and the numbers that are kept of it.

The files beside this module were written by the code of commit 7f5e1c8, before its files were moved:

    OMP_NUM_THREADS=1 python train.py $(python -m tests.golden.cases token) hydra.run.dir=RUN paths.store=STORE
    python -m tests.golden.cases token RUN

the first command in a checkout of that commit, the second here. Whoever changes numbers on purpose writes the files
again with both commands, and says in CHANGELOG.md which numbers have changed and why.

Everything is computed in double precision: scores are stored in single precision, so that builds whose sums differ in
the last bits still store the same numbers.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, load_from_disk

from twinlens.callbacks.results.columns import Cell
from twinlens.callbacks.results.results_csv import read_results

FOLDER = Path(__file__).parent
LENGTH = 10
"""First entries of every list that are kept."""
BUILD = "build"
ROWS = "results"
NUMBERS = ("value", "stderr", "n")
_COMMON = ("debug=fdr", "trainer.accelerator=cpu", "trainer.precision=64-true", "logger=none")
_GENERATED = (
    *_COMMON,
    "data.n_train=60",
    "data.n_validation=10",
    "data.n_test=20",
    "data.n_twins=2",
    "model.architecture.num_hidden_layers=2",
    "model.architecture.hidden_size=64",
    "model.architecture.intermediate_size=128",
)

CASES: Mapping[str, tuple[str, ...]] = {
    "classification": (
        "model=tiny",
        "data=demo",
        "method=[ig,ig_gauss,ig_reference,gradsim,gradsim_cosine,influence,influence_ekfac,influence_hessian,"
        "influence_lissa,bm25,similarity,tracin,random_instances,random_neurons,gradsim_neurons,influence_neurons,"
        "na_instances]",
        "evaluation=[accuracy,faithfulness,uniqueness,duplicates,artifacts,diversity,overlap]",
        "method.gradsim_cosine.params=all",
        "method.influence_ekfac.params=all",
        "data.limit.train=48",
        "data.limit.test=6",
        *_GENERATED,
    ),
    "choice": (
        "model=tiny",
        "data=demo_choice",
        "method=[ig,ig_gauss,gradsim,gradsim_cosine,influence,influence_ekfac,bm25,similarity,tracin,random_instances,"
        "random_neurons,influence_neurons,na_instances]",
        "evaluation=[accuracy,faithfulness,uniqueness,duplicates,overlap]",
        "method.gradsim_cosine.params=all",
        "data.limit.train=32",
        "data.limit.test=4",
        *_GENERATED,
    ),
    "token": (
        "model=facts",
        "data=knowledge",
        "fit=false",
        "method=[ig,ig_gauss,coefficient,coefficient_inverse_rank,coefficient_norm,grad_x_act,heads,head_positions,"
        "inverse_rank,layers,log_prob,logprob_increase,logprob_increase_attn,prob_increase,query_layers,"
        "query_layers_attn,query_neurons,random_neurons,value_norm]",
        "evaluation=[known_facts,interventions,layer_importance,head_importance,importance_sums,value_interventions,"
        "query_layers,query_interventions,shared_neurons,neuron_layers]",
        "data.limit.test=4",
        *_COMMON,
    ),
}
"""Readout → overrides, in words that the code of before the move understands as well."""


def golden(name: str) -> dict[str, np.ndarray]:
    """The numbers that are kept of one case."""
    with np.load(FOLDER / f"{name}.npz", allow_pickle=False) as kept:
        return dict(kept)


def build() -> str:
    """What bits depend on: the library that does the arithmetic and the processor that it was made for."""
    return f"torch {torch.__version__} {torch.backends.cpu.get_cpu_capability()} {_processor()}"


def numbers_of(run: Path) -> dict[str, np.ndarray]:
    """The numbers of a run: what it predicts, all its scores and the values of results.csv."""
    found = _columns("examples/test", load_from_disk(str(run / "examples" / "test")), ("prediction", "prob"))
    for folder in sorted((run / "scores").rglob("*")):
        if (folder / "dataset_info.json").is_file():
            found |= _columns(folder.relative_to(run).as_posix(), load_from_disk(str(folder)))
    # the base line of faithfulness came after the golden runs
    rows = [row for row in read_results(run / "results.csv") if row["method"] != "no_neurons"]
    found[ROWS] = np.array([name_of(row) for row in rows])
    for column in NUMBERS:
        found[f"{ROWS}/{column}"] = np.array([_number(row[column]) for row in rows], dtype=np.float64)
    return found


def name_of(row: Mapping[str, Cell]) -> str:
    """What a row of results.csv is about; `control` came after the golden runs."""
    about = ((column, cell) for column, cell in row.items() if column not in (*NUMBERS, "control"))
    return " · ".join(f"{column} {cell}" for column, cell in about if cell is not None)


def _columns(where: str, table: Dataset, wanted: tuple[str, ...] | None = None) -> dict[str, np.ndarray]:
    """Numeric columns of a stored table, lists cut to `LENGTH` and filled up with NaN; sites as 0 (ffn), 1 (attn)."""
    found = {}
    for name in table.column_names if wanted is None else [name for name in wanted if name in table.column_names]:
        cells = [_list(cell) for cell in table[name][:]]
        if any(isinstance(value, str) for cell in cells for value in cell) and name != "site":
            continue
        longest = max((len(cell) for cell in cells), default=0)
        padded = [[_number(value) for value in cell] + [np.nan] * (longest - len(cell)) for cell in cells]
        # single precision is what score files hold; row numbers are small enough for it too
        found[f"{where}/{name}"] = np.array(padded, dtype=np.float32).reshape(len(cells), longest)
    return found


def _list(cell: Any) -> list[Any]:
    return list(cell)[:LENGTH] if isinstance(cell, list | tuple) else [cell]


def _number(value: Any) -> float:
    if isinstance(value, str):
        return ("ffn", "attn").index(value)
    return np.nan if value is None else float(value)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


if __name__ == "__main__":
    case, *runs = sys.argv[1:]
    if runs:
        np.savez_compressed(FOLDER / f"{case}.npz", **numbers_of(Path(runs[0])), **{BUILD: np.array(build())})
    else:
        print(*CASES[case])
