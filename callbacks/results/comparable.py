"""Comparison of a run's resolved configuration with the experiment of a paper, whole: the first difference is named.

A published experiment is what conf/ ships under the names of its model and data, with the trainer, the fit and the
methods as shipped, and what conf/experiment/<paper>/all.yaml sets for the whole run. Left out of the comparison is what
changes no number (devices, sizes of evaluation batches), what a paper does not print (seeds) and where files lie.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from omegaconf import OmegaConf

from twinlens.callbacks.fit.stage import WITHOUT_EFFECT, n_processes
from twinlens.callbacks.results.columns import Row
from twinlens.conf.checking.shipped import non_default, same, shipped, shown

FOLDERS = {"Yu, Atanasova and Augenstein 2024": "unified", "Yu and Ananiadou 2024": "neuron_level"}
"""Paper → its folder of conf/experiment."""
CUTS = ("limit_train_batches", "limit_val_batches", "limit_predict_batches", "fast_dev_run")
NOT_COMPARED = {
    "model": {"_target_", "name", "path", "attention", "trust_remote_code", "batch_size", "max_epochs",
              "gradient_clip_val"},  # the last three come back in data and trainer, as they are used
    "data": {"_target_", "name", "path", "test", "test_path", "eval_batch_size", "num_workers", "batch_size", "seed",
             "split_seed", "sample_seed", "padding_side", "limit", "select", "split_validation", "split_sizes"},
    "trainer": WITHOUT_EFFECT | {*CUTS, "accumulate_grad_batches"},
}  # fmt: skip
"""Group → keys that change no number, that no paper prints, or that are looked at one by one."""
OF_TRAINING = {"head", "learning_rate", "weight_decay", "warmup_fraction", "schedule"}
"""Keys of a model that matter only where it is trained; likewise all of the trainer but its precision."""
OF_RUN = ("fit", "attribute_split", "explain", "explain_against", "choices")
"""Keys at the top level that change what is explained and how."""
ONLY_FOR = {"choices": ("cosqa",)}
"""Keys of `OF_RUN` that say something only of some data."""
MEANT: Mapping[str, Mapping[str, Any]] = {
    "template": {"": "reference"},
    "bos": {"": True},
    "max_length": {"": 512, "cosqa": 128},
    "cut": {"averitec": "evidence", "mnli": "premise", "cosqa": "question"},
}
"""What `null` stands for in a key of the data where a model is trained, by data set; empty: any."""
NAMED_IN_ROWS = {"_target_", "sufficiency", "comprehensiveness", "fractions", "top", "neurons", "k"}
"""Options of evaluations whose value a row names itself, as its k."""


def mismatch(config: Mapping[str, Any], n_train: int | None = None, wanted: int | None = None, paper: str = "") -> str:
    """The first difference between a run and a paper's experiment on its model and data; empty where there is none.

    A key that the configuration lacks is none: an earlier version had no such option.

    Args:
        config: the run's configuration.
        n_train: rows of its training split, None where it has none.
        wanted: training rows of the paper, None where it prints none.
        paper: whose experiment; empty: only what every paper's has in common.
    """
    return next(_differences(config, n_train, wanted, paper), "")


def method_mismatch(config: Mapping[str, Any], name: str) -> str:
    """The first option of a method that is not as shipped, which is as published; empty where there is none."""
    node = _group(_group(config, "method"), name)
    found = {key: value for key, value in non_default(name, "method", node).items() if key != "_target_"}
    known = shipped(name, "method") or {}
    return next((_said(f"method.{name}.{key}", value, known.get(key)) for key, value in found.items()), "")


def evaluation_mismatch(config: Mapping[str, Any], row: Row) -> str:
    """The first option of a row's evaluation that is not as shipped and that the row itself does not show.

    Coefficients of a regression on refits depend on which subsets there were as well.
    """
    names = [str(row.get("evaluation") or "")] + (["retraining"] if row.get("metric") == "coefficient" else [])
    for name in names:
        kept = {"_target_"} if name == "retraining" and len(names) > 1 else NAMED_IN_ROWS
        known = shipped(name, "evaluation") or {}
        for key, value in non_default(name, "evaluation", _group(_group(config, "evaluation"), name)).items():
            if key not in kept and key in known:
                return _said(f"evaluation.{name}.{key}", value, known[key])
    return ""


def _differences(config: Mapping[str, Any], n_train: int | None, wanted: int | None, paper: str) -> Iterator[str]:
    data, trainer = _group(config, "data"), _group(config, "trainer")
    for key in ("limit", "select"):
        yield from (f"data.{key}.{split} is set" for split, value in _group(data, key).items() if value is not None)
    if data.get("split_validation"):
        yield "data.split_validation is set"
    yield from (f"trainer.{key} is set" for key in CUTS if _cuts(trainer.get(key)))
    if wanted is not None and n_train is not None and n_train != wanted:
        yield f"{n_train} training rows, {wanted} in the paper"
    expected = experiment(config, paper)
    for key in OF_RUN:
        if key in config and key in expected and data.get("name") in ONLY_FOR.get(key, (data.get("name"),)):
            yield from _unequal(key, config[key], expected[key])
    yield from _checkpoint(_group(config, "model").get("path"), _group(expected, "model").get("path"))
    trains = expected.get("fit", True)
    for group in ("model", "data", "trainer"):
        own, theirs, skipped = _group(config, group), _group(expected, group), NOT_COMPARED[group]
        for key in [*theirs, *(key for key in own if key not in theirs)] if theirs else ():
            of_training = key in OF_TRAINING if group == "model" else group == "trainer" and key != "precision"
            if key in own and key not in skipped and (trains or not of_training):
                meant = MEANT.get(key, {}) if group == "data" and trains else {}
                null = meant.get(str(data.get("name")), meant.get(""))
                pair = [null if value is None else value for value in (own[key], theirs.get(key))]
                yield from _unequal(f"{group}.{key}", *pair)
    if trains and "batch_size" in data and "batch_size" in _group(expected, "data"):
        here, there = (_rows_of_a_step(_group(one, "data"), _group(one, "trainer")) for one in (config, expected))
        yield from _unequal("the batch of a training step", here, there)
    yield from (f"callbacks.{name} is set" for name in _group(config, "callbacks") if trains)


def experiment(config: Mapping[str, Any], paper: str = "") -> dict[str, Any]:
    """The configuration of a paper's experiment on the model and data of a run, interpolations resolved.

    Groups of models and data that are not shipped are absent.
    """
    values: dict[str, Any] = {"seed": config.get("seed", 0)}
    for key, value in (shipped("train") or {}).items():
        values[key] = value if key in OF_RUN else values.get(key)
    for key, value in (shipped("all", f"experiment/{FOLDERS[paper]}") or {}).items() if paper in FOLDERS else ():
        values[key] = value if key in OF_RUN else values.get(key)
    names = {group: str(_group(config, group).get("name", "")).partition("/")[0] for group in ("model", "data")}
    for group, name in {**names, "trainer": "default"}.items():
        node = shipped(name, group)
        if node is not None:
            values[group] = node
    if "model" not in values:  # the trainer takes its recipe from there
        values.pop("trainer", None)
        values["model"] = {"batch_size": None}
    resolved: Any = OmegaConf.to_container(OmegaConf.create(values), resolve=True)
    return dict(resolved)


def _checkpoint(path: Any, published: Any) -> Iterator[str]:
    """A folder counts as the checkpoint that it is named after, as clones of the hub and its cache are."""
    if path is None or published is None or path == published:
        return
    parts = [part.replace("models--", "").split("--") for part in str(path).replace("\\", "/").split("/")]
    if str(published).rpartition("/")[2] not in [part[-1] for part in parts]:
        yield _said("model.path", path, published) + " (a folder of that name counts as it)"


def _rows_of_a_step(data: Mapping[str, Any], trainer: Mapping[str, Any]) -> int:
    return int(data["batch_size"]) * n_processes(trainer) * int(trainer.get("accumulate_grad_batches") or 1)


def _unequal(key: str, here: Any, there: Any) -> Iterator[str]:
    if not same(here, there):
        yield _said(key, here, there)


def _said(key: str, here: Any, there: Any) -> str:
    return f"{key} is {shown(here)}, the paper's {shown(there)}"


def _group(config: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = config.get(name)
    return found if isinstance(found, Mapping) else {}


def _cuts(value: Any) -> bool:
    """Whether a limit of Lightning's Trainer leaves batches out: a share below 1.0, or any number of batches."""
    return value not in (None, False) and not (isinstance(value, float) and value == 1.0)
