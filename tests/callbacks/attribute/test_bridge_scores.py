"""Bridges in a run: after what they need, equal to the double loops over what is stored, and read from the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml

from tests.callbacks.plan.test_planner import in_store
from tests.oracles_bridge import dcns, instance_neurons
from tests.running import CommandLine, stages_of
from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Method, Source
from twinlens.callbacks.attribute.method_graph import in_order, require_sources
from twinlens.callbacks.passes import predict_pass as passes
from twinlens.callbacks.passes.shards import write_shard

METHODS = "method=[influence_neurons,na_instances,gradsim_neurons,ig,gradsim,influence]"


def stored(run: Path, name: str, split: str = "test") -> list[dict[str, Any]]:
    return list(datasets.load_from_disk(str(run / "scores" / name / split)))


def neurons(row: dict[str, Any]) -> list[tuple[tuple[int, int], float]]:
    return list(zip(zip(row["layer"], row["unit"], strict=True), row["score"], strict=True))


def test_bridges_equal_the_double_loops_and_are_read_again(command: CommandLine) -> None:
    arguments = (METHODS, "method.influence_neurons.dedup=true", "evaluation=[faithfulness,uniqueness]")
    first = command(*arguments)
    assert first.code == 0, first.err
    done = stages_of(first.out)
    assert set(done.values()) == {"computed"}
    names = list(done)
    assert names.index("ig on train") < names.index("influence_neurons")
    assert names.index("influence") < names.index("influence_neurons")
    assert names.index("ig") < names.index("na_instances")
    run = first.folder

    train, test = ([neurons(row) for row in stored(run, "ig", split)] for split in ("train", "test"))
    summary = stored(run, "na_instances", "train_summary")
    assert len(train) == len(summary) == 48
    mean = [0.0] * 48
    for row, explained in zip(stored(run, "na_instances"), test, strict=True):
        expected = [dcns(lists, explained) for lists in train]
        assert row["top_score"] == pytest.approx(sorted(expected, reverse=True), rel=1e-5)
        assert row["top_score"] == pytest.approx([expected[i] for i in row["top_index"]], rel=1e-5)
        mean = [total + score / len(test) for total, score in zip(mean, expected, strict=True)]
    assert [row["mean"] for row in summary] == pytest.approx(mean, rel=1e-5)

    predictions = list(datasets.load_from_disk(str(run / "examples" / "test")))
    for source in ("gradsim", "influence"):
        for row, instances, prediction in zip(
            stored(run, f"{source}_neurons"), stored(run, source), predictions, strict=True
        ):
            ranked = list(zip(instances["top_index"], instances["top_score"], strict=True))
            assert neurons(row) == instance_neurons(ranked, train, 100, source == "influence")
            assert row["target"] == prediction["prediction"]
            assert row["target_prob"] == pytest.approx(prediction["prob"][row["target"]])
            assert row["completeness"] is None
    settings = yaml.safe_load((run / "scores" / "gradsim_neurons" / "method.yaml").read_text())
    assert (settings["name"], settings["source"], settings["neurons"]) == ("gradsim_neurons", "gradsim", "ig")

    again = command(*arguments)
    assert set(stages_of(again.out).values()) == {"read from the store"}
    assert stages_of(again.out).keys() == done.keys()
    assert (again.folder / "results.csv").read_text() == (run / "results.csv").read_text()
    # the train split's pass is the explained split's: asked for as such, it is the same stage
    explained = command("method=ig", "evaluation=accuracy", "attribute_split=train")
    assert stages_of(explained.out)["ig"] == "read from the store"
    planned = in_store(command(*arguments, "plan=true").out)
    assert {"ig on train", "na_instances", "gradsim_neurons"} <= set(planned)
    assert set(planned.values()) == {"yes"}


class Needs(Method):
    """A method that names others."""

    def __init__(self, *sources: str) -> None:
        self.needed = sources

    @property
    def sources(self) -> list[Source]:
        return [Source("needed", name) for name in self.needed]


def test_methods_run_after_what_they_need() -> None:
    methods = {"a": Needs("c", "b"), "b": Needs("c"), "c": Needs(), "d": Needs()}
    require_sources(methods)
    assert in_order(methods) == ["c", "b", "a", "d"]


def test_methods_that_need_each_other_are_refused() -> None:
    with pytest.raises(UserError, match=r"method.a needs itself \(a → b → a\); expected"):
        require_sources({"a": Needs("b"), "b": Needs("a")})


@pytest.mark.long
def test_a_killed_pass_over_the_train_split_goes_on(command: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ("method=[ig,na_instances]", "evaluation=accuracy")
    monkeypatch.setattr(passes, "write_shard", dies_at(14))  # the explained split has 12
    killed = command(*arguments)
    assert killed.code == 130
    monkeypatch.undo()
    finished = command(*arguments)
    assert finished.code == 0, finished.err
    assert "ig on train: 13 of 16 shards are there, going on" in finished.out
    assert "ig on train: computed" in finished.out


def dies_at(number: int) -> Any:
    """Writes shards of neuron passes before the given one, at which the run is interrupted."""

    def write(folder: Path, shard: int, tensors: Any) -> None:
        if "layer" in tensors and shard + 1 == number:
            raise KeyboardInterrupt
        write_shard(folder, shard, tensors)

    return write
