"""Sufficiency and comprehensiveness of neuron lists (first paper, Sec. 3.3, Eq. 2 and 3, Table 2)."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import ClassVar, Literal

import torch
from torch import Tensor

from twinlens.attribution.engine_sizes import EngineSizes, ForwardWork
from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.base_line import BASE_LINE, base_line_answers, base_lines, no_neurons
from twinlens.attribution.evaluation.controls import CONTROL, Control
from twinlens.attribution.evaluation.edits import (
    Intervention,
    Positions,
    edited_scores,
    kept_neurons,
    questions_at_once,
    replacement_of,
)
from twinlens.attribution.evaluation.questions import PROBABILITY, NeuronList, Question, Test
from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.statistics import area, wilson
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.protocols import Batch, NeuronModel

Better = Literal["higher", "lower"]


class Faithfulness:
    """Predictions when neurons are switched off: preserved ones (per cent), flips (number), probability drops.

    Sufficiency keeps the first r entries of a list and switches off every other neuron of all layers;
    comprehensiveness switches off the first r. An entry that repeats a neuron counts as listed. All edits of an example
    share one prefix and, memory permitting, one forward. A list that ranks attention neurons is tested on the sites
    that it ranks: what it does not rank stays on, so that its sufficiency is comparable with lists of the same sites
    alone (`variant` says which). Beside the lists of each site stands its base line, r = 0, as `no_neurons`: all that
    the site has switched off, or nothing. In multiple choice edits concern the predicted choice's sequence, or all (see
    `twinlens.attribution.protocols.NeuronModel.sequences_per_example`).

    Args:
        sufficiency: values of r for the sufficiency test; a curve has an area from two values on.
        comprehensiveness: values of r for the comprehensiveness test.
        control_seeds: seeds of the random control.
        control: `uniform`: one random list per seed and site that lists are of, neurons of all layers without
            replacement. `matched`: for each list a random one with as many distinct neurons in each layer and site, for
            every r.
        intervention: what a switched-off neuron becomes: `zero`, its `mean` over a reference sample at the answer
            position, or (`resample`) its value there in another example of the sample.
        positions: `last`: edits concern the answer position; `all`: every position, by full forwards.
        reference: split that the sample is drawn from, the `explained` one or `train`.
        reference_size: examples of the sample.
        reference_seed: draws the sample and each example's partner in `resample`.

    Raises:
        UserError: r below 1, no r at all, or a sample too small to draw from.

    Example:
        >>> from twinlens.attribution.evaluation.faithfulness import Faithfulness
        >>> from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, example_batch
        >>> from twinlens.attribution.neuron.ig import IntegratedGradients
        >>> model, batch = ExampleNeuronModel(), example_batch()
        >>> found = IntegratedGradients(top_k=4).attribute(model, batch, BUDGET)
        >>> test = Faithfulness(sufficiency=[1], comprehensiveness=[4])
        >>> answers = test.answers(model, batch, {"ig": (found.layer, found.unit)}, BUDGET)
        >>> rows = test.evaluate(answers, {"ig": ["ig"]})
        >>> drops = [row for row in rows if row.metric.endswith("drop")]  # fall of the probability
        >>> {row.metric: round(row.value, 2) for row in drops if row.method == "ig"}
        {'sufficiency_drop': 0.07, 'comprehensiveness_drop': 0.25}
        >>> {row.metric: round(row.value, 2) for row in drops if row.method == "no_neurons"}  # all off, none off
        {'sufficiency_drop': 0.52, 'comprehensiveness_drop': 0.0}
    """

    papers: ClassVar[tuple[str, ...]] = ("yu2024unified",)
    requires = "neuron"

    def __init__(
        self,
        sufficiency: Sequence[int] = (1,),
        comprehensiveness: Sequence[int] = (100,),
        control_seeds: Sequence[int] = (0, 1, 2),
        control: Control = "uniform",
        intervention: Intervention = "zero",
        positions: Positions = "last",
        reference: Literal["explained", "train"] = "explained",
        reference_size: int = 128,
        reference_seed: int = 0,
    ) -> None:
        self.sufficiency = list(sufficiency)
        self.comprehensiveness = list(comprehensiveness)
        self.control_seeds = list(control_seeds)
        self.control = control
        self.intervention = intervention
        self.positions = positions
        self.reference = reference
        self.reference_size = reference_size
        self.reference_seed = reference_seed
        counts = [*self.sufficiency, *self.comprehensiveness]
        if not counts or any(r < 1 for r in counts):
            raise UserError(
                "evaluation.faithfulness asks for fewer than one neuron; expected r ≥ 1 in sufficiency and "
                "comprehensiveness (r = 0 is always given, as no_neurons): set e.g. "
                "evaluation.faithfulness.sufficiency=[1]."
            )
        if reference_size < 2:
            raise UserError(
                f"evaluation.faithfulness.reference_size={reference_size} leaves no other example to draw from; "
                "expected at least 2: raise it."
            )

    @property
    def counts(self) -> dict[Test, list[int]]:
        """Values of r by test."""
        return {"sufficiency": self.sufficiency, "comprehensiveness": self.comprehensiveness}

    @property
    def longest(self) -> int:
        """Largest r."""
        return max([*self.sufficiency, *self.comprehensiveness])

    def questions(self, names: Sequence[str]) -> list[Question]:
        """Everything that is asked of the given lists."""
        return [Question(name, test, r) for name in names for test, counts in self.counts.items() for r in counts]

    def n_edits(self, names: Sequence[str], sites: Mapping[str, str]) -> int:
        """Edited forwards of an example: every question about the lists `names`, and a base line per site.

        Args:
            sites: of each list that ranks others than FFN neurons.
        """
        return len(self.questions(names)) + len(base_lines(names, sites)) * bool(self.sufficiency)

    def require_length(self, name: str, top_k: int) -> None:
        """Refuse a method whose lists are shorter than the largest r.

        Raises:
            UserError: naming the method and both numbers.
        """
        if top_k < self.longest:
            raise UserError(
                f"evaluation.faithfulness needs the {self.longest} best neurons, but method.{name}.top_k={top_k} keeps "
                f"fewer; set method.{name}.top_k={self.longest} or a smaller r."
            )

    def need(self, sizes: EngineSizes, n_questions: int, controlled: Collection[str]) -> Need:
        """Memory of one example.

        The forward beside the prefix's keys and values, then edited rows without gradients, one per question; at all
        positions edited forwards. The random control's rankings are drawn before. Another example's activations are
        held beside all.

        Args:
            n_questions: edited rows of an example.
            controlled: sites that random controls are drawn from.
        """
        footprint = sizes.footprint
        drawn = max((footprint.random_ranking(site) for site in controlled), default=0)
        other = 2 * 4 * footprint.n_layers * footprint.n_neurons if self.intervention == "resample" else 0
        one = footprint.edited_sequence if self.positions == "all" else footprint.edited_row

        def rows(columns: int, count: int) -> int:
            edits = footprint.kept(columns) + other + count * one(columns)
            if self.positions != "all":
                edits += footprint.chunk(columns, footprint.n_layers - 1)
            return max(drawn, sizes.states(columns), sizes.sequences.edited * edits)

        return Need(
            lambda columns: rows(columns, 1),
            lambda columns: rows(columns, n_questions),
            lambda columns: sizes.sequences.edited * one(columns),
        )

    def work(self, sizes: EngineSizes, model: ForwardWork, tokens: int, n_questions: int) -> float:
        """Operations of one example: the forward, and one token more for every question, or one forward more, each
        with its scores."""
        forward, sequences = model.forward_operations(tokens), sizes.sequences
        row = forward if self.positions == "all" else sizes.footprint.n_layers * model.block_operations(tokens)
        read = model.readout_operations
        return sequences.forwards() * (forward + read) + n_questions * sequences.edited * (row + read)

    def answers(
        self,
        model: NeuronModel,
        batch: Batch,
        lists: Mapping[str, NeuronList],
        memory_budget: int,
        reference: Reference | None = None,
        sites: Mapping[str, str] | None = None,
    ) -> dict[str, Tensor]:
        """Answers of the edited forwards about the class that is predicted without edit.

        Where the batch has a `target`, the token of a completion, probabilities are the target's.

        Args:
            lists: by name.
            memory_budget: bytes; answers do not depend on it.
            reference: needed for `mean` and `resample`.
            sites: of each list that ranks others than FFN neurons, `attn` or `both`.

        Returns:
            question key → whether the prediction stays, bool [batch]; its `probability_key` → the class's probability
            then, and `PROBABILITY` → without edit, float32 [batch]. Base lines are among the lists.
        """
        base = base_lines(lists, sites or {})
        every = {**(sites or {}), **base}
        lists = {**lists, **dict.fromkeys(base, no_neurons(len(batch["index"]), batch["index"].device))}
        states = model.states(batch)
        clean = states.scores.float().softmax(-1)
        prediction = clean.argmax(-1)
        asked_of = batch.get("target", prediction)[:, None]
        answers: dict[str, Tensor] = {PROBABILITY: clean.gather(1, asked_of)[:, 0]}
        replacement = replacement_of(
            self.intervention, reference, states.activation, batch["index"], self.reference_seed
        )
        questions = self.questions([name for name in lists if name not in base])
        questions += [Question(name, "sufficiency", 0) for name in base if self.sufficiency]
        at_once = questions_at_once(model, states, self.positions, memory_budget)
        for start in range(0, len(questions), at_once):
            part = questions[start : start + at_once]
            asked = [(lists[q.name], q.r, q.test == "sufficiency", every.get(q.name, "ffn")) for q in part]
            kept = torch.stack([kept_neurons(model, *each) for each in asked], 1)
            if not sites:  # attention is left alone altogether
                kept = kept[..., : model.n_neurons]
            edited = edited_scores(model, states, kept, replacement, self.positions).float().softmax(-1)
            for column, question in enumerate(part):
                answers[question.key] = edited[:, column].argmax(-1) == prediction
                answers[question.probability_key] = edited[:, column].gather(1, asked_of)[:, 0]
        for name in base:
            answers |= base_line_answers(answers, name, self.questions([name]))
        return answers

    def evaluate(
        self,
        answers: Mapping[str, Tensor],
        seeds_of: Mapping[str, Sequence[str]],
        matched: Mapping[str, Sequence[str]] | None = None,
        sites: Mapping[str, str] | None = None,
        uniform: Mapping[str, Sequence[str]] | None = None,
    ) -> list[Result]:
        """Percentages, counts, probability drops and areas, with standard errors over examples.

        Args:
            answers: of all examples, from `answers`.
            seeds_of: method → names of its lists, one per seed; the mean over seeds of each example comes first.
            matched: method → names of its matched controls; they become rows of `random_neurons` with the method as
                reference group.
            sites: as in `answers`, and of the controls.
            uniform: site → names of the controls drawn from it; they become rows of `random_neurons`.
        """
        sites = sites or {}
        results = [
            row
            for method, names in seeds_of.items()
            for row in self._rows(answers, method, names, site=sites.get(names[0], "ffn"), control=method == CONTROL)
        ]
        for site, names in (uniform or {}).items():
            results += self._rows(answers, CONTROL, names, site=site, control=True)
        for method, names in (matched or {}).items():
            results += self._rows(answers, CONTROL, names, method, sites.get(names[0], "ffn"), control=True)
        for name, site in base_lines([names[0] for names in seeds_of.values()], sites).items():
            results += self._rows(answers, BASE_LINE, [name], site=site, control=True)
        return results

    def _rows(
        self,
        answers: Mapping[str, Tensor],
        method: str,
        names: Sequence[str],
        matches: str = "",
        site: str = "ffn",
        control: bool = False,
    ) -> Iterator[Result]:
        """All rows of one method: per test and r preserved %, flips and drop, and per test the area."""
        variant = self._variant(bool(matches), site)
        row = partial(_row, method=method, reference_group=matches, variant=variant, control=control)
        for test, counts in self.counts.items():
            directions: list[Better] = ["higher", "lower"]
            better, worse = directions if test == "sufficiency" else reversed(directions)
            shares = []
            for r in counts:
                asked = [Question(name, test, r) for name in names]
                share = torch.stack([answers[q.key] for q in asked]).double().mean(0)
                left = torch.stack([answers[q.probability_key] for q in asked]).double().mean(0)
                shares.append(share)
                yield row(test, share, 100, better, k=r)
                yield row(f"{test}_flips", 1 - share, len(share), worse, k=r)
                yield row(f"{test}_drop", answers[PROBABILITY].double() - left, 1, worse, k=r)
            if len(set(counts)) > 1:
                yield row(f"{test}_auc", area(torch.stack(shares), counts), 100, better)

    def _variant(self, matched: bool, site: str) -> str:
        """Settings other than the default, `key=value;…`."""
        said = ["control=matched"] if matched else []
        said += [f"intervention={self.intervention}"] if self.intervention != "zero" else []
        said += [f"positions={self.positions}"] if self.positions != "last" else []
        said += ["reference=train"] if self.intervention != "zero" and self.reference == "train" else []
        said += [f"site={site}"] if site != "ffn" else []
        return ";".join(said)


def _row(metric: str, values: Tensor, unit: float, better: Better, k: int | None = None, **more: object) -> Result:
    """Mean of `values` [examples] with its standard error, both times `unit`; of shares the interval too."""
    stderr = float(values.std() / len(values) ** 0.5) * unit if len(values) > 1 else None
    if not metric.endswith(("_drop", "_auc")):
        more["low"], more["high"] = wilson(float(values.mean()), len(values), unit)
    more |= {"samples": values, "unit": unit, "k": k, "better": better}
    return Result(metric, float(values.mean()) * unit, stderr, n=len(values), **more)  # type: ignore[arg-type]
