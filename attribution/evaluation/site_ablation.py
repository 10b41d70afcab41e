"""Four cells of both sites: MLP neurons on or off × attention neurons on or off, all layers, at the answer token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.evaluation.edits import edited_scores, questions_at_once, replacement_of
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import mean_and_error
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch, NeuronModel
from twinlens.attribution.targets import target_of

CELLS = tuple((ffn, attention) for ffn in (True, False) for attention in (True, False))
"""Which sites are on in each cell: FFN neurons, attention neurons."""


class SiteAblation:
    """Predictions preserved (per cent) and the target's probability in the four cells of MLP × attention.

    Off means that every neuron of the site is zero in all layers at the answer token; output biases stay, and so does
    all that earlier tokens have done. With one site off the cell is faithfulness' base line (r = 0) of that site, with
    both that of both. In multiple choice edits concern the sequences that they concern in faithfulness.

    Example:
        >>> from twinlens.attribution.evaluation.site_ablation import SiteAblation
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> test = SiteAblation()
        >>> rows = test.evaluate(test.answers(ExampleNeuronModel(), example_batch(), BUDGET), split="test")
        >>> kept = {(row.group, row.reference_group): row.value for row in rows if row.metric == "preserved"}
        >>> kept["mlp on", "attention off"], kept["mlp off", "attention on"], kept["mlp off", "attention off"]
        (100.0, 50.0, 0.0)
    """

    requires = "sites"

    def need(self, sizes: EngineSizes) -> Need:
        """Memory of one example: the forward, then edited rows without gradients, one per cell but the first."""
        return Faithfulness().need(sizes, len(CELLS) - 1, ())

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int) -> float:
        """Operations of one example: the forward, and one token more for every cell but the first."""
        return Faithfulness().work(sizes, model, tokens, len(CELLS) - 1)

    def answers(self, model: NeuronModel, batch: Batch, memory_budget: int) -> dict[str, Tensor]:
        """Answers of the edited forwards about the prediction without edit, and about the target.

        Args:
            memory_budget: bytes; answers do not depend on it.

        Returns:
            `preserved`: whether the prediction stays, bool [batch, 4]; `target_prob`: probability of what the batch
            says is explained, else of the predicted class, float32 [batch, 4]; both in the order of `CELLS`.
        """
        states = model.states(batch)
        target = target_of(batch, states.scores)
        kept = self._kept(model).to(states.scores.device)
        zeros = replacement_of("zero", None, states.activation, batch["index"], seed=0)
        at_once = questions_at_once(model, states, "last", memory_budget)
        scores = [states.scores[:, None]]
        for part in kept.split(at_once):
            scores.append(edited_scores(model, states, part.expand(len(target), *part.shape), zeros, "last"))
        found = torch.cat([part.float() for part in scores], 1)
        place = target[:, None, None].expand(-1, len(CELLS), 1)
        return {
            "preserved": found.argmax(-1) == found[:, :1].argmax(-1),
            "target_prob": found.softmax(-1).gather(2, place)[..., 0],
        }

    def _kept(self, model: NeuronModel) -> Tensor:
        """Which activations stay in each cell but the first, bool [cells, layers, FFN + attention neurons]."""
        on = torch.tensor(CELLS[1:])
        sizes = torch.tensor([model.n_neurons, model.n_attention])
        return on.repeat_interleave(sizes, 1)[:, None].expand(-1, model.n_layers, -1)

    def evaluate(self, answers: Mapping[str, Tensor], split: str) -> list[Result]:
        """Per cell the percentage of preserved predictions and the target's mean probability, with standard errors.

        Args:
            answers: of all examples, from `answers`.
            split: explained split.
        """
        results = []
        for metric, unit in (("preserved", 100.0), ("target_prob", 1.0)):
            for column, cell in enumerate(CELLS):
                values = answers[metric][:, column].double() * unit
                mean, error = mean_and_error(values)
                mlp, attention = ("on" if on else "off" for on in cell)
                groups = f"mlp {mlp}", f"attention {attention}"
                results.append(Result(metric, mean, error, len(values), None, *groups, split=split))
        return results
