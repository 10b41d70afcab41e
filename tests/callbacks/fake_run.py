"""A synthetic run folder, written exactly as the contract on a run's files says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from datasets import Dataset

from twinlens.callbacks.results.columns import Row
from twinlens.callbacks.results.results_csv import write_results

SUBJECTS = ("The city council", "A new vaccine", "The central bank", "An old photograph", "The national team")
VERBS = ("approved", "rejected", "doubled", "misreported", "withdrew")
OBJECTS = (
    "the budget for schools",
    "its own figures",
    "a plan for the harbour",
    "the interest rate",
    "the final score",
)

CONTROLS = ("random_neurons", "random_instances")


@dataclass
class FakeRun:
    """What the run folder contains.

    Attributes:
        neuron, instance: names of methods; the `CONTROLS` among them are written with three seeds.
        marker: text put into every field that comes from data, model or configuration (to test escaping).
        paper: results of every evaluation of the first paper as well.
        limited: only a part of the data was used, and fewer epochs; else all is as in the paper.
        unlabelled: no test example has a label.
        summary: write train_summary beside the splits of instance methods.
    """

    neuron: Sequence[str] = ("ig", "random_neurons")
    instance: Sequence[str] = ("gradsim", "influence", "random_instances")
    model: str = "tiny"
    data: str = "demo"
    marker: str = ""
    labels: Sequence[str] = ("Supported", "Refuted", "Not Enough Evidence")
    n_train: int = 120
    n_test: int = 40
    n_layers: int = 8
    list_length: int = 20
    evidence_words: int = 30
    paper: bool = False
    limited: bool = True
    unlabelled: bool = False
    plants: bool = True
    summary: bool = True
    seed: int = 0
    generator: np.random.Generator = field(init=False)

    def write(self, run: Path) -> Path:
        """Write the folder and return it."""
        self.generator = np.random.default_rng(self.seed)
        run.mkdir(parents=True, exist_ok=True)
        (run / "config.yaml").write_text(yaml.safe_dump(self.config(), sort_keys=False), encoding="utf-8")
        (run / "metrics.json").write_text(json.dumps(self.metrics()), encoding="utf-8")
        (run / "model").mkdir(exist_ok=True)
        names = {str(i): name + self.marker for i, name in enumerate(self.labels)}
        model_config = {"model_type": "gpt_neox", "num_hidden_layers": self.n_layers, "id2label": names}
        (run / "model" / "config.json").write_text(json.dumps(model_config), encoding="utf-8")
        for split, n in (("train", self.n_train), ("validation", 10), ("test", self.n_test)):
            self.examples(split, n).save_to_disk(str(run / "examples" / split))
        for name in self.neuron:
            self.write_scores(run / "scores" / name, name, self.neuron_scores)
        for name in self.instance:
            self.write_scores(run / "scores" / name, name, self.instance_scores)
        write_results(run / "results.csv", self.results())
        return run

    def config(self) -> dict[str, Any]:
        methods = {name: {"_target_": f"attribution.{name}", "top_k": 100} for name in (*self.neuron, *self.instance)}
        return {
            "model": {"name": self.model + self.marker, "head": "linear"},
            "data": {
                "name": self.data + self.marker,
                "max_length": 64 if self.limited else 512,
                "limit": {"train": None, "test": 40 if self.limited else None},
            },
            "method": methods,
            "evaluation": {"accuracy": {}, "faithfulness": {"top": [1, 100]}},
            "trainer": {
                **{"max_epochs": 3 if self.limited else 5, "precision": "32-true"},
                **({"optimizer": {"learning_rate": 1e-5}} if self.limited else {}),
            },
            "seed": self.seed,
            "note": "free text" + self.marker,
        }

    def metrics(self) -> dict[str, float]:
        return {
            "accuracy/accuracy": 0.765,
            "accuracy/macro_f1": 0.742,
            "validation/accuracy/accuracy": 0.8,
            "data/cut_text": 7,
            "data/empty_field": 1,
            "data/duplicate_text": 3,
            "time/fit": 31.25,
            "odd" + self.marker: 1.0,
        }

    def examples(self, split: str, n: int) -> Dataset:
        """examples/<split>: claims with evidence, three classes, the planted columns."""
        pick = self.generator.integers
        claim = [
            f"{split} {i}: {SUBJECTS[pick(5)]} {VERBS[pick(5)]} {OBJECTS[pick(5)]}.{self.marker}" for i in range(n)
        ]
        words = [*SUBJECTS, *VERBS, *OBJECTS]
        evidence = [" ".join(words[pick(len(words))] for _ in range(self.evidence_words)) for _ in range(n)]
        prob = self.generator.dirichlet(np.full(len(self.labels), 0.7), size=n)
        prediction = prob.argmax(1)
        noise = self.generator.random(n) < 0.25
        label = np.where(noise, (prediction + 1) % len(self.labels), prediction)
        if self.unlabelled and split == "test":
            label[:] = -1
        columns: dict[str, Any] = {
            "index": list(range(n)),
            "source_index": [10 * i for i in range(n)],
            "claim": claim,
            "evidence": evidence,
            "readout": ["sequence"] * n,
            "label": label.tolist(),
            "prediction": prediction.tolist(),
            "prob": prob.tolist(),
            "input_ids": [list(text.encode()) for text in claim],
        }
        if self.plants:
            columns["twin"] = [10 * i if i < 10 and split in ("train", "test") else -1 for i in range(n)]
            columns["wrong_label"] = (self.generator.random(n) < 0.05).tolist()
            columns["shortcut"] = (self.generator.random(n) < 0.1).tolist()
        return Dataset.from_dict(columns)

    def write_scores(self, folder: Path, name: str, make: Any) -> None:
        folder.mkdir(parents=True)
        random = name in CONTROLS
        for leaf in [folder / f"seed{k}" for k in range(3)] if random else [folder]:
            make(name, random).save_to_disk(str(leaf / "test"))
            if make == self.instance_scores and self.summary:
                self.train_summary().save_to_disk(str(leaf / "train_summary"))
        settings = {
            "name": name,
            **({"control": True} if random else {}),
            "sign": "no sign of loss" if random else "positive: more training on it lowers the test loss" + self.marker,
            "settings": {"top_k": self.list_length},
        }
        (folder / "method.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")

    def neuron_scores(self, name: str, random: bool) -> Dataset:
        rows = []
        favourite = self.generator.dirichlet(np.arange(1, self.n_layers + 1) * 0.6)
        for i in range(self.n_test):
            r = self.list_length
            layer = self.generator.choice(self.n_layers, size=r, p=None if random else favourite)
            score = np.sort(self.generator.gamma(1.0, 0.02, size=r))[::-1] - (0.005 if not random else 0)
            rows.append(
                {
                    "index": i,
                    "target": int(i % len(self.labels)),
                    "target_prob": 0.75,
                    "role": ["value"] * r,
                    "unit_kind": ["neuron"] * r,
                    "site": ["ffn"] * r,
                    "layer": layer.tolist(),
                    "unit": self.generator.integers(0, 512, size=r).tolist(),
                    "position": [-1] * r,
                    "score": score.tolist(),
                    "completeness": None if random else (self.generator.random(self.n_layers) * 1e-3).tolist(),
                }
            )
        return Dataset.from_list(rows)

    def instance_scores(self, name: str, random: bool) -> Dataset:
        rows = []
        for i in range(self.n_test):
            order = self.generator.permutation(self.n_train)
            k = min(self.list_length, self.n_train // 2)
            score = np.sort(self.generator.normal(0, 3e-3, size=self.n_train))[::-1]
            if self.plants and i < 10 and not random:  # the twin of test example i is train instance i
                order = np.concatenate([[i], order[order != i]])
            top, bottom = order[:k], order[::-1][:k]
            rows.append(
                {
                    "index": i,
                    "top_index": top.tolist(),
                    "top_score": score[:k].tolist(),
                    "bottom_index": bottom.tolist(),
                    "bottom_score": score[::-1][:k].tolist(),
                }
            )
        return Dataset.from_list(rows)

    def train_summary(self) -> Dataset:
        n = self.n_train
        return Dataset.from_dict(
            {
                "index": list(range(n)),
                "mean": self.generator.normal(0, 1e-3, n).tolist(),
                "max": self.generator.random(n).tolist(),
                "votes": self.generator.integers(0, 12, n).tolist(),
                "self_influence": self.generator.random(n).tolist(),
            }
        )

    def results(self) -> list[Row]:
        common: dict[str, Any] = {"model": self.model + self.marker, "data": self.data + self.marker, "seed": self.seed}
        common |= {"split": "test", "n": self.n_test}
        rows: list[Row] = [
            common | {"method": "", "evaluation": "accuracy", "metric": metric, "value": value, "stderr": 0.03}
            for metric, value in (("accuracy", 0.765), ("macro_f1", 0.742))
        ]
        rows.append(rows[0] | {"split": "validation", "value": 0.8, "stderr": 0.13, "n": 10})
        for i, name in enumerate(() if self.paper else self.neuron):
            faithful = common | {"method": name, "evaluation": "faithfulness"}
            rows.append(faithful | {"metric": "sufficiency", "k": 1, "value": 61.5 - 20 * i, "stderr": 2.25})
            rows.append(faithful | {"metric": "sufficiency", "k": 100, "value": 81.0 - 25 * i, "stderr": 2.0})
            rows.append(faithful | {"metric": "comprehensiveness", "k": 1, "value": 91.0 + 3 * i, "stderr": 1.5})
            rows.append(faithful | {"metric": "comprehensiveness", "k": 100, "value": 33.0 + 25 * i, "stderr": 3.5})
        for i, name in enumerate(self.instance):
            twins = common | {"method": name, "evaluation": "duplicates", "metric": "mrr", "k": 100}
            rows.append(twins | {"value": (0.93, 0.71, 0.012)[i % 3], "stderr": (0.02, 0.03, 0.004)[i % 3]})
        return [*marked(rows), *paper_rows(common)] if self.paper else marked(rows)


LENS = ("na_instances", "influence", "gradsim")
SHARES_OF_TRAIN = (10, 20, 30, 50, 70, 100)


def paper_rows(common: dict[str, Any]) -> list[Row]:
    """Rows of every evaluation of the first paper, as their metric names and layout are agreed on."""
    return marked([row for make in (faithfulness, retraining, overlap, diversity, others) for row in make(common)])


def marked(rows: Sequence[Row]) -> list[Row]:
    """The rows, with a word in those of controls."""
    return [{**row, "control": "true" if row["method"] in CONTROLS else None} for row in rows]


def faithfulness(common: dict[str, Any]) -> list[Row]:
    """Curves of four methods over five values of r, with areas."""
    rows: list[Row] = []
    for i, name in enumerate(("ig", "influence_neurons", "gradsim_neurons", "random_neurons")):
        cells = common | {"method": name, "evaluation": "faithfulness"}
        for metric, start, slope in (("sufficiency", 60.0, 7.0), ("comprehensiveness", 99.0, -9.0)):
            for j, r in enumerate((1, 3, 10, 30, 100)):
                value = start + slope * j * (1 - 0.22 * i)
                rows.append(cells | {"metric": metric, "k": r, "value": value, "stderr": 1.5})
            rows.append(cells | {"metric": f"{metric}_auc", "value": start + slope * 2 * (1 - 0.22 * i)})
    return rows


def retraining(common: dict[str, Any]) -> list[Row]:
    """Accuracy and preserved predictions after training on the first n %, three seeds each."""
    rows: list[Row] = []
    groups = [*((name, group) for name in LENS for group in ("most", "least")), ("random_instances", "random")]
    for i, (name, group) in enumerate(groups):
        for n in SHARES_OF_TRAIN:
            for metric, top in (("accuracy", 0.74), ("preserved", 0.9)):
                value = top - (0.02 + 0.03 * i) * (1 - n / 100) ** 2 - 0.1 * (1 - n / 100)
                cells = {"method": name, "group": group, "evaluation": "retraining", "metric": metric, "k": n}
                rows.append(common | cells | {"value": value, "stderr": 0.012})
    return rows


def overlap(common: dict[str, Any]) -> list[Row]:
    """Instances pairwise at each n %, and neurons of both lenses."""
    rows: list[Row] = []
    cells = common | {"evaluation": "overlap"}
    for (a, b), start in ((LENS[:2], 12.0), (LENS[::2], 15.0), (LENS[1:], 84.0)):
        for n in SHARES_OF_TRAIN:
            value = start + (100 - start) * (n / 100) ** 2
            found = {"method": a, "reference_group": b, "metric": "instance_overlap", "k": n, "value": value}
            rows += [cells | found, cells | found | {"method": b, "reference_group": a}]
    for name in ("influence_neurons", "gradsim_neurons"):
        for n, (na, ia) in zip((1, 5, 10, 50, 100), ((48, 44), (55, 30), (60, 20), (70, 8), (78, 4)), strict=True):
            for metric, value in (("only_na", na), ("only_ia", ia), ("common", 100 - na - ia)):
                rows.append(
                    cells | {"method": name, "reference_group": "ig", "metric": metric, "k": n, "value": float(value)}
                )
    return rows


def diversity(common: dict[str, Any]) -> list[Row]:
    """Four metrics of the subsets of `retraining` at 10 %, and the coefficients."""
    rows: list[Row] = []
    cells = common | {"evaluation": "diversity"}
    for metric, value in (("cosine_similarity", 0.3), ("loss", 0.2), ("vocabulary", 6977.0), ("input_length", 163.1)):
        rows.append(cells | {"method": "", "metric": "coefficient", "group": metric, "value": -value / 10})
        for name, group in [*((m, g) for g in ("most", "least") for m in LENS), ("random_instances", "random")]:
            rows.append(cells | {"method": name, "metric": metric, "k": 10, "group": group, "value": value})
    return rows


def others(common: dict[str, Any]) -> list[Row]:
    """Unique instances, lexical overlap, concepts."""
    rows: list[Row] = []
    for i, name in enumerate((*LENS, "random_instances")):
        unique = {"method": name, "evaluation": "uniqueness", "metric": "unique_instances", "k": 10}
        rows.append(common | unique | {"value": 30.0 + i})
        for k in (1, 10):
            lexical = {"method": name, "evaluation": "artifacts", "metric": "lexical_overlap", "k": k}
            rows.append(common | lexical | {"group": "challenge", "value": 0.16 + 0.01 * i, "stderr": 0.004})
    for metric, value in (("concepts_train", 2099.0), ("concepts_shared", 725.0), ("concept_coverage", 87.5)):
        rows.append(common | {"method": "", "evaluation": "concepts", "metric": metric, "value": value})
    return rows
