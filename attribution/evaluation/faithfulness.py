"""Sufficiency and comprehensiveness of neuron lists (paper 1, Sec. 3.3, Eq. 2 and 3, Table 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from attribution.base import Batch, NeuronModel, UserError
from attribution.evaluation.result import Result
from attribution.neuron.ranking import chosen_mask

Test = Literal["sufficiency", "comprehensiveness"]
NeuronList = tuple[Tensor, Tensor]
"""Layers and units of the best neurons of each example, best first, [batch, top_k] each; −1: the list has ended."""


@dataclass(frozen=True)
class Question:
    """One edited forward per example: which list, which test, how many neurons."""

    name: str
    test: Test
    r: int

    @property
    def key(self) -> str:
        """Name of its column among the stored answers."""
        return f"{self.name}|{self.test}|{self.r}"


class Faithfulness:
    """Percentage of predictions that survive when neurons are switched off at the answer position.

    Sufficiency keeps the r best neurons of all layers and zeroes every other; comprehensiveness zeroes the r best.
    Edits concern the answer position only; earlier positions keep their activations. All edits of an example share one
    prefix and one forward.

    Args:
        sufficiency: values of r for the sufficiency test; higher percentages are better.
        comprehensiveness: values of r for the comprehensiveness test; lower percentages are better.
        control_seeds: seeds of the random control, neurons drawn without replacement.
    """

    requires = "neuron"

    def __init__(
        self,
        sufficiency: Sequence[int] = (1,),
        comprehensiveness: Sequence[int] = (100,),
        control_seeds: Sequence[int] = (0, 1, 2),
    ) -> None:
        self.sufficiency = list(sufficiency)
        self.comprehensiveness = list(comprehensiveness)
        self.control_seeds = list(control_seeds)
        if any(r < 1 for r in (*self.sufficiency, *self.comprehensiveness)):
            raise UserError(
                "evaluation.faithfulness asks for fewer than one neuron; expected r ≥ 1 in sufficiency and "
                "comprehensiveness: set e.g. evaluation.faithfulness.sufficiency=[1]."
            )

    def questions(self, names: Sequence[str]) -> list[Question]:
        """Everything that is asked of the given lists."""
        asked: dict[Test, list[int]] = {
            "sufficiency": self.sufficiency,
            "comprehensiveness": self.comprehensiveness,
        }
        return [Question(name, test, r) for name in names for test, counts in asked.items() for r in counts]

    def require_length(self, name: str, top_k: int) -> None:
        """Refuse a method whose lists are shorter than the largest r.

        Raises:
            UserError: naming the method and both numbers.
        """
        longest = max([*self.sufficiency, *self.comprehensiveness])
        if top_k < longest:
            raise UserError(
                f"evaluation.faithfulness needs the {longest} best neurons, but method.{name}.top_k={top_k} keeps "
                f"fewer; set method.{name}.top_k={longest} or a smaller r."
            )

    def preserved(
        self, model: NeuronModel, batch: Batch, lists: Mapping[str, NeuronList], memory_budget: int
    ) -> dict[str, Tensor]:
        """Whether each edited forward keeps the prediction: question key → bool [batch]."""
        questions = self.questions(list(lists))
        states = model.states(batch)
        prediction = states.scores.argmax(-1)
        room = memory_budget - model.bytes_of_states(states) - model.bytes_per_chunk(states, model.n_layers - 1)
        rows = max(1, room // max(1, model.bytes_per_edit(states)))
        answers: dict[str, Tensor] = {}
        for start in range(0, len(questions), rows):
            part = questions[start : start + rows]
            kept = torch.stack([kept_neurons(model, lists[q.name], q) for q in part], 1)

            def edit(layer: int, activation: Tensor, kept: Tensor = kept) -> Tensor:
                return activation * kept[:, :, layer].to(activation.dtype)

            with torch.no_grad():
                edited = model.score_edits(states, edit, len(part)).argmax(-1)
            for column, question in enumerate(part):
                answers[question.key] = edited[:, column] == prediction
        return answers

    def evaluate(self, answers: Mapping[str, Tensor], seeds_of: Mapping[str, Sequence[str]]) -> list[Result]:
        """Percentages with standard errors over examples.

        Args:
            answers: question key → bool [examples], from `preserved`.
            seeds_of: method → names of its lists, one per seed; the mean over seeds of each example comes first.
        """
        results = []
        for method, names in seeds_of.items():
            for question in self.questions([method]):
                columns = [answers[Question(name, question.test, question.r).key] for name in names]
                share = 100 * torch.stack(columns).double().mean(0)
                stderr = float(share.std() / len(share) ** 0.5) if len(share) > 1 else None
                results.append(
                    Result(
                        question.test,
                        float(share.mean()),
                        stderr,
                        n=len(share),
                        k=question.r,
                        method=method,
                        better="higher" if question.test == "sufficiency" else "lower",
                    )
                )
        return results


def kept_neurons(model: NeuronModel, neurons: NeuronList, question: Question) -> Tensor:
    """Which activations an edited forward keeps, bool [batch, layers, neurons]."""
    layer, unit = neurons
    listed = chosen_mask(layer[:, : question.r], unit[:, : question.r], model.n_layers, model.n_neurons)
    return listed if question.test == "sufficiency" else ~listed
