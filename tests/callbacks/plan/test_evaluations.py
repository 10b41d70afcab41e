"""Operations that the plan counts for evaluations, against those that are done."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from tests.tiny_llama import LLAMA
from twinlens.attribution.engine_sizes import EngineSizes
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.neuron_level.importance_sums import ImportanceSums
from twinlens.attribution.evaluation.neuron_level.query_interventions import QueryInterventions
from twinlens.attribution.evaluation.neuron_level.reads import Reads
from twinlens.attribution.evaluation.neuron_level.shared_neurons import SharedNeurons
from twinlens.attribution.evaluation.neuron_level.value_neurons import shared_operations
from twinlens.callbacks.passes.shapes import shape_of
from twinlens.callbacks.plan.neuron_level import neuron_level_lines
from twinlens.callbacks.plan.times import Times
from twinlens.models.backbone import load_tokenizer
from twinlens.models.language_model import LanguageModel


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    tokenizer = load_tokenizer("models/facts")
    return LanguageModel("tiny", tokenizer, architecture=LLAMA, seed=1).eval().requires_grad_(False)


@pytest.mark.parametrize("positions", ["last", "all"])
@pytest.mark.parametrize("n_lists", [2, 9])
def test_edited_forwards_of_a_vocabulary_count_their_scores(model: LanguageModel, positions: Any, n_lists: int) -> None:
    """Of small models the vocabulary's product is most of an edited token's work."""
    n, tokens = 4, 12
    engine, shape = model.engine(tests=True), shape_of(model.lm)
    batch = {
        "index": torch.arange(n),
        "input_ids": torch.randint(0, 50, (n, tokens), generator=torch.Generator().manual_seed(0)),
        "attention_mask": torch.ones(n, tokens, dtype=torch.int64),
    }
    one = torch.zeros(n, 1, dtype=torch.int64)
    lists = {f"list {number}": (one, one + number) for number in range(n_lists)}
    evaluation = Faithfulness(sufficiency=[1], comprehensiveness=[1], positions=positions)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        evaluation.answers(engine, batch, lists, 2**30)
    sizes = EngineSizes(shape.footprint)
    counted = n * evaluation.work(sizes, shape, tokens, evaluation.n_edits(list(lists), {}))
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.25)
    assert shape.readout_operations == 2 * model.lm.get_output_embeddings().weight.numel()


def test_edited_forwards_go_at_their_own_rate() -> None:
    class Counting:
        asked: ClassVar[list[tuple[Any, ...]]] = []

        def edits(self, evaluation: object, lists: list[str], sites: dict[str, str]) -> float:
            self.asked.append((evaluation, lists, sites))
            return 4.0

    times = Times(100.0, 1000.0, Counting())  # type: ignore[arg-type]
    assert times.edits("faithfulness", "what", ["ig"], {}, 8.0) == 2.0
    assert times.edits("faithfulness", "what", ["ig"], {}, 16.0) == 4.0
    assert Counting.asked == [("what", ["ig"], {})]
    assert Times(100.0, 1000.0, None).edits("faithfulness", "what", ["ig"], {}, 200.0) == 2.0


class Plan:
    """What the lines of evaluations are made with: every operation takes a second."""

    def __init__(self, model: LanguageModel, lengths: list[int]) -> None:
        self.shape = shape_of(model.lm)
        self.lengths = {"test": lengths}
        self.times = SimpleNamespace(forward=lambda operations: operations)
        self.parts = SimpleNamespace(settings={"evaluation": {}})
        self.session = SimpleNamespace(
            split="test", predictions={}, memory_budget=2**30, data=SimpleNamespace(splits={"test": self}),
            store=SimpleNamespace(peek=lambda stage, inputs: None),
        )  # fmt: skip
        self.column_names: list[str] = []
        self.shared_reads = Reads()

    def __len__(self) -> int:
        return len(self.lengths["test"])

    def model_line(self, title: str, split: str, found: object, need: object, seconds: float, disk: int) -> Any:
        return SimpleNamespace(name=title, seconds=seconds)


def test_what_several_evaluations_read_counts_in_the_first_line_alone(model: LanguageModel) -> None:
    lengths = [5, 5, 9]

    def seconds(*evaluations: Any) -> list[float]:
        plan: Any = Plan(model, lengths)
        return [neuron_level_lines(plan, "any", evaluation, {})[0].seconds for evaluation in evaluations]

    queries, shared = QueryInterventions(control_seeds=[]), SharedNeurons(top=20)
    engine, forward = shape_of(model.lm).residual, shape_of(model.lm).forward_operations
    assert engine is not None
    (alone,), (other,), both = seconds(queries), seconds(shared), seconds(queries, shared)
    assert both[0] == alone
    assert 0 <= both[1] < other
    reads = queries.reads(engine).joined(shared.reads(engine))
    expected = sum(forward(n) + shared_operations(reads, engine, n, forward(n)) for n in lengths)
    assert sum(both) == pytest.approx(expected)
    assert seconds(queries, queries)[1] == pytest.approx(sum(forward(n) for n in lengths)), "its own forward alone"


def test_the_product_of_all_neurons_counts_once_for_all_sentences(model: LanguageModel) -> None:
    test = ImportanceSums()
    of_one, of_many = Plan(model, [8]), Plan(model, [8] * 50)
    one, many = (neuron_level_lines(plan, "sums", test, {})[0].seconds for plan in (of_one, of_many))  # type: ignore[arg-type]
    engine = of_one.shape.residual
    assert engine is not None
    assert many == pytest.approx(50 * one - 49 * test.operations_together(engine))
