"""The causal bridge through the stages: equal to plain loops, either way round, whatever the blocks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor

from tests.callbacks.attribute.layer_case import LENGTHS, Readout, Rows, gradients_of, session_of
from tests.oracles_gradients import fisher_of_layers, layer_gradients, whole_scores
from tests.oracles_units import best_units, contribution
from twinlens.attribution.bridge.data_of_neurons import DataOfNeurons, NeuronsOfData
from twinlens.callbacks.attribute.stage import attribute_stage
from twinlens.callbacks.attribute.whole_gradient_scores import blocks_of_tests, layers_of
from twinlens.callbacks.passes.session import Session

NAMED = [["ffn", 0, 5], ["attn", 1, 9], ["head", 1, 3]]
SMALL = "score"
HEAD_SIZE = 8


def asked(session: Session, method: DataOfNeurons, turned: int = 0) -> dict[str, Path]:
    """Folders of both directions."""
    methods: dict[str, Any] = {"data_of_neurons": method}
    if turned:
        methods["neurons_of_data"] = NeuronsOfData(top_k=turned)
    methods = {name: each.among(methods) for name, each in methods.items()}
    for name in methods:
        attribute_stage(session, name, methods, {each: {} for each in methods})
    return {name: session.scores[name, "test"] for name in methods}


def table(folder: Path, split: str = "test") -> Any:
    return datasets.load_from_disk(str(folder / split)).with_format("torch")


def dense(rows: Any) -> Tensor:
    """[pairs, train rows] from lists as long as the train split."""
    index, score = rows["top_index"][:], rows["top_score"][:]
    assert torch.equal(rows["bottom_score"][:], score.flip(1))
    return torch.zeros_like(score).scatter(1, index, score).double()


def plain(session: Session, params: str) -> tuple[list[Any], list[Tensor], Tensor]:
    """Layers, gradients of the contributions' opposites, layers → [pairs, …], and the contributions, by plain loops."""
    layers, _ = gradients_of(session, params)
    model: Any = session.readable
    data: Any = session.data
    batch, targets = data.batches["test"], session.targets("neuron", "test").target
    gradients, found = [], []
    for kind, layer, unit in NAMED:
        block = model.backbone.layers[layer]
        module = block.mlp.dense_4h_to_h if kind == "ffn" else block.attention.dense
        span = (unit * HEAD_SIZE, (unit + 1) * HEAD_SIZE) if kind == "head" else (unit, unit + 1)

        def loss_of(row: Any, module: Any = module, span: tuple[int, int] = span) -> Tensor:
            ids = row["input_ids"][row["attention_mask"].bool()][None]
            alone = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            target = targets[row["index"]]
            value = contribution(lambda: model(alone).log_softmax(-1)[0, target], module, span)
            found.append(value.detach())
            return -value.sum()

        gradients.append(layer_gradients(layers, loss_of, batch))
    n = len(LENGTHS["test"])
    order = [kind * n + example for example in range(n) for kind in range(len(NAMED))]
    values = torch.cat([value.flatten() for value in found])[order]
    return layers, [torch.cat(parts)[order] for parts in zip(*gradients, strict=True)], values


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-4) -> None:
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected.double(), rtol=tolerance, atol=tolerance * scale)


@pytest.mark.parametrize(("readout", "padding"), [("classification", "left"), ("token", "right")])
def test_scores_equal_per_unit_autograd_both_ways_round(tmp_path: Path, readout: Readout, padding: str) -> None:
    session = session_of(tmp_path, Rows(readout, padding))
    method = DataOfNeurons(of=None, units=NAMED, curvature="identity", damping=1.0, top_k=13)
    folders = asked(session, method, turned=2)
    rows = table(folders["data_of_neurons"])
    n = len(LENGTHS["test"])
    assert rows["index"][:].tolist() == [index for index in range(n) for _ in NAMED]
    assert rows["unit_kind"][:3] == ["neuron", "neuron", "head"]
    assert rows["site"][:3] == ["ffn", "attn", "attn"]
    _, trains = gradients_of(session, "all")
    _, units, phi = plain(session, "all")
    close(rows["contribution"][:], phi)
    expected = whole_scores(units, trains["train"])
    close(dense(rows), expected)

    built = datasets.load_from_disk(str(folders["neurons_of_data"] / "train"))
    assert len(built) == len(LENGTHS["train"])
    assert not (folders["neurons_of_data"] / "test").exists()
    numbers = [pair % len(NAMED) for pair in range(len(expected))]
    for row in built:
        best = best_units(expected[:, row["index"]].tolist(), numbers, 2)
        assert row["explained"] == [place // len(NAMED) for place, _ in best]
        named = [["head" if kind == "head" else site, layer, unit] for kind, site, layer, unit in
                 zip(row["unit_kind"], row["site"], row["layer"], row["unit"], strict=True)]  # fmt: skip
        assert named == [NAMED[numbers[place]] for place, _ in best]
        close(torch.tensor(row["score"]), torch.tensor([score for _, score in best]))


def test_influence_equals_solves_with_the_matrices_written_out(tmp_path: Path) -> None:
    session = session_of(tmp_path, Rows("classification"))
    method = DataOfNeurons(of=None, units=NAMED, params=SMALL, top_k=13)
    found = dense(table(asked(session, method)["data_of_neurons"]))
    layers, trains = gradients_of(session, SMALL)
    batch = session.data.batches["train"]  # type: ignore[attr-defined]
    matrices = fisher_of_layers(layers, session.classifier, batch, True, True)
    damped = [f + 0.1 * f.trace() / len(f) * torch.eye(len(f)).double() for f in matrices]
    _, units, _ = plain(session, SMALL)
    close(found, whole_scores(units, trains["train"], damped=damped), 1e-3)


def test_blocks_batches_and_segments_leave_scores_unchanged(tmp_path: Path) -> None:
    method, results = DataOfNeurons(of=None, units=NAMED, curvature="identity", damping=1.0, top_k=4), []
    for number, (budget, size) in enumerate([(2**26, 3), (700_000, 5)]):
        session = session_of(tmp_path / str(number), Rows("classification", batch_size=size), budget)
        blocks = blocks_of_tests(session, layers_of(session, "all"), False, 15, 1)
        assert (len(blocks) > 1) == bool(number)
        results.append(asked(session, method, turned=3))
    for name, split in (("data_of_neurons", "test"), ("neurons_of_data", "train")):
        one, other = (table(folders[name], split) for folders in results)
        for column in one.column_names:
            first, second = one[column][:], other[column][:]
            if isinstance(first, Tensor) and first.dtype.is_floating_point:
                close(second.nan_to_num(), first.nan_to_num())
            elif isinstance(first, Tensor):
                assert torch.equal(first, second), column
            else:
                assert first == second, column
