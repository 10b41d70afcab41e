"""Faithfulness as a stage: edited forwards of every list over the explained split, stored under their fingerprint."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.evaluation.completion_answers import completion_answers
from twinlens.attribution.evaluation.controls import CONTROL, matched_list
from twinlens.attribution.evaluation.faithfulness import Faithfulness
from twinlens.attribution.evaluation.questions import NeuronList
from twinlens.attribution.evaluation.reference import Reference
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.neuron.random_neurons import RandomNeurons, neurons_of
from twinlens.attribution.neuron.ranking import coded_units
from twinlens.attribution.protocols import Batch, NeuronModel
from twinlens.callbacks.attribute.anatomy import check_edited_tokens
from twinlens.callbacks.attribute.reference_activations import sampled_activations
from twinlens.callbacks.attribute.score_files import read_addresses, score_name
from twinlens.callbacks.evaluate.evaluation_inputs import kept_rows
from twinlens.callbacks.passes.explain import COMPLETION
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_pass
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.store import Finish


@dataclass(frozen=True)
class Lists:
    """The neuron lists of a run and the random controls drawn beside them.

    Attributes:
        stored: name of a list → layers and units, [examples, longest r] each; −1: the list has ended.
        seeds_of: method → names of its lists, one per seed.
        uniform: site → seeds of controls drawn from all its neurons.
        matched: method → list and seed of each of its matched controls.
        site_of: list → `attn` or `both` where it ranks others than FFN neurons.
    """

    stored: dict[str, NeuronList]
    seeds_of: dict[str, list[str]]
    uniform: dict[str, list[int]]
    matched: dict[str, list[tuple[str, int]]]
    site_of: dict[str, str] = field(default_factory=dict)

    @property
    def sites(self) -> dict[str, str]:
        """Sites of the lists, and of their controls, that rank others than FFN neurons."""
        controls = {
            matched_name(name, seed): self.site_of[name]
            for pairs in self.matched.values()
            for name, seed in pairs
            if name in self.site_of
        }
        drawn = {name: site for site, names in self.uniform_names.items() for name in names if site != "ffn"}
        return {**self.site_of, **controls, **drawn}

    @property
    def uniform_names(self) -> dict[str, list[str]]:
        """Site → names of the controls drawn from all its neurons."""
        return {site: [uniform_name(site, seed) for seed in seeds] for site, seeds in self.uniform.items()}

    @property
    def names(self) -> list[str]:
        """Names of everything that is tested, controls included."""
        return [*self.stored, *control_names(self.uniform, self.matched)]

    def of_batch(self, model: NeuronModel, batch: Batch, longest: int) -> dict[str, NeuronList]:
        """All lists of the examples of a batch, controls drawn for them."""
        index = batch["index"]
        rows, present = index.cpu(), neurons_of(model, batch)
        lists = {
            name: (layer[rows].to(index.device), unit[rows].to(index.device))
            for name, (layer, unit) in self.stored.items()
        }
        for site, seeds in self.uniform.items():
            for seed in seeds:
                drawn = RandomNeurons([seed], longest, site).drawn(model, index, present)  # type: ignore[arg-type]
                lists[uniform_name(site, seed)] = (drawn.layer, coded_units(drawn))
        for name, seed in {pair for pairs in self.matched.values() for pair in pairs}:
            lists[matched_name(name, seed)] = matched_list(
                *lists[name], model.n_layers, model.n_neurons, index, seed,
                model.n_attention if name in self.site_of else 0, present,
            )  # fmt: skip
        return lists


def uniform_name(site: str, seed: int) -> str:
    """Name of a control drawn from all neurons of a site."""
    return score_name(CONTROL if site == "ffn" else f"{CONTROL}/{site}", seed)


def matched_name(name: str, seed: int) -> str:
    """Name of a list's matched control."""
    return f"{CONTROL}/{name}/seed{seed}"


def control_names(uniform: Mapping[str, list[int]], matched: Mapping[str, list[tuple[str, int]]]) -> list[str]:
    """Names of all controls' lists."""
    pairs = [matched_name(name, seed) for found in matched.values() for name, seed in found]
    return [uniform_name(site, seed) for site, seeds in uniform.items() for seed in seeds] + pairs


def faithfulness_stage(
    session: Session, name: str, evaluation: Faithfulness, settings: Mapping[str, Any], methods: Mapping[str, Any]
) -> list[Result]:
    """Results of the evaluation over the run's neuron methods.

    Raises:
        UserError: a reference split that the data do not have or that is too small.
    """
    lists = neuron_lists(session, evaluation, methods)
    inputs = faithfulness_inputs(session, evaluation, settings, lists)

    def build(folder: Path) -> Finish:
        check_edited_tokens(session)
        reference = _reference(session, name, evaluation, folder / "reference")
        answers = _answers(session, name, evaluation, lists, reference, folder)

        def finish() -> None:
            shutil.rmtree(folder / "reference", ignore_errors=True)
            kept = {key: column.contiguous() for key, column in answers.items() if key != "index"}
            save_file(kept, folder / "answers.safetensors")

        return finish

    labels = session.labels(evaluation=name, split=session.split)
    entry = session.store.get("evaluate", inputs, build, labels, name)
    matched = {method: [matched_name(*pair) for pair in pairs] for method, pairs in lists.matched.items()}
    kept = kept_rows(session)
    answers = {key: answer[kept] for key, answer in load_file(entry.path / "answers.safetensors").items()}
    return evaluation.evaluate(answers, lists.seeds_of, matched, lists.sites, lists.uniform_names)


def controls_of(
    evaluation: Faithfulness, methods: Mapping[str, Any]
) -> tuple[dict[str, list[int]], dict[str, list[tuple[str, int]]]]:
    """Seeds of uniform controls by site, none where the run has a control of its own, and matched ones by method."""
    if evaluation.control == "uniform":
        own = {site_of(name, methods) for name, method in methods.items() if method.is_control}
        asked = [site_of(name, methods) for name, method in methods.items() if not method.is_control]
        seeds = list(evaluation.control_seeds)
        return {site: seeds for site in dict.fromkeys(asked) if site not in own and seeds}, {}
    pairs = {
        name: [(key, seed) for key in list_names(name, method) for seed in evaluation.control_seeds]
        for name, method in methods.items()
        if not method.is_control
    }
    return {}, pairs


def control_sites(
    uniform: Mapping[str, Any], matched: Mapping[str, list[tuple[str, int]]], site_of_list: Mapping[str, str]
) -> set[str]:
    """Sites whose neurons are drawn for controls; a matched one of attention neurons permutes those of both sites.

    Args:
        site_of_list: of the lists that rank others than FFN neurons.
    """
    listed = {name for pairs in matched.values() for name, _ in pairs}
    return {*uniform, *("both" if name in site_of_list else "ffn" for name in listed)}


def list_names(name: str, method: Any) -> list[str]:
    """Names of a method's lists, one per seed."""
    return [score_name(name, seed) for seed in method.seeds]


def neuron_lists(session: Session, evaluation: Faithfulness, methods: Mapping[str, Any]) -> Lists:
    """Stored lists of all methods and seeds, and the controls they call for."""
    stored, seeds_of, sites = {}, {}, {}
    for method, configured in methods.items():
        evaluation.require_length(method, configured.top_k)
        seeds_of[method] = list_names(method, configured)
        for key in seeds_of[method]:
            stored[key] = read_addresses(session.scores[key, session.split] / session.split, evaluation.longest)
            if site_of(method, methods) != "ffn":
                sites[key] = site_of(method, methods)
    return Lists(stored, seeds_of, *controls_of(evaluation, methods), sites)


def refuse_replaced_attention(evaluation: Faithfulness, methods: Mapping[str, Any]) -> None:
    """Refuse lists of attention neurons, which no example's activations are put in place of.

    Raises:
        UserError: naming the method.
    """
    sites = {name: site_of(name, methods) for name, method in methods.items() if method.names_neurons}
    other = next((name for name, site in sites.items() if site != "ffn"), None)
    if other is not None and evaluation.intervention != "zero":
        raise UserError(
            f"evaluation.faithfulness.intervention={evaluation.intervention} replaces activations of FFN neurons, but "
            f"method={other} ranks attention neurons (site={sites[other]}); expected site=ffn, or zeros: set "
            "evaluation.faithfulness.intervention=zero or leave the method out."
        )


def site_of(name: str, methods: Mapping[str, Any]) -> str:
    """Sites that a method of the run ranks: `ffn`, `attn` or `both`; composed lists have their neurons' source's."""
    method = methods[name]
    return methods[method.neurons].ranks if method.from_instances else method.ranks


def faithfulness_inputs(
    session: Session, evaluation: Faithfulness, settings: Mapping[str, Any], lists: Lists
) -> dict[str, Any]:
    """Everything the answers depend on."""
    of_train = evaluation.intervention != "zero" and evaluation.reference == "train"
    asked = session.explain.neuron
    return {
        "examples": session.predictions[session.split].fingerprint,
        "lists": {key: _digest(layer, unit) for key, (layer, unit) in lists.stored.items()},
        **({"sites": lists.sites} if lists.sites else {}),
        "evaluation": dict(settings),
        "controls": control_names(lists.uniform, lists.matched),
        "code": code_of(__name__, evaluation, settings),
        **({"reference": session.data.fingerprint("train")} if of_train else {}),
        **session.reading,
        **({"explain": asked.identity} if asked.target == COMPLETION else {}),
    }


def reference_split(session: Session, evaluation: Faithfulness) -> str | None:
    """Split that replaced activations come from, None where none are needed.

    Raises:
        UserError: the data do not have it, or it holds one example only.
    """
    if evaluation.intervention == "zero":
        return None
    split = "train" if evaluation.reference == "train" else session.split
    rows = len(session.data.splits.get(split, ()))
    if rows < 2:
        raise UserError(
            f"evaluation.faithfulness.intervention={evaluation.intervention} takes activations from other examples of "
            f"the {split} split, which has {rows}; expected at least 2: set evaluation.faithfulness.reference="
            f"{'explained' if split == 'train' else 'train'} or intervention=zero."
        )
    return split


def _reference(session: Session, name: str, evaluation: Faithfulness, folder: Path) -> Reference | None:
    """Activations of a seeded sample of a split, where the evaluation needs them."""
    split = reference_split(session, evaluation)
    if split is None:
        return None
    draw = evaluation.reference_size, evaluation.reference_seed
    engine = session.readable.engine(tests=True)
    of_explained = split == session.split
    return sampled_activations(session, name, split, engine, draw, session.engine_sizes, of_explained, folder)


def _answers(
    session: Session,
    name: str,
    evaluation: Faithfulness,
    lists: Lists,
    reference: Reference | None,
    folder: Path,
) -> dict[str, Tensor]:
    engine = session.readable.engine(tests=True)
    completions = session.targets("neuron", session.split).completions

    def compute(batch: Batch, budget: int) -> dict[str, Tensor]:
        asked = lists.of_batch(engine, batch, evaluation.longest)
        more: dict[str, Any] = {"reference": reference, "sites": lists.sites}
        if completions is None:
            return {"index": batch["index"], **evaluation.answers(engine, batch, asked, budget, **more)}
        own = completions.at(batch["index"].cpu())
        found = completion_answers(evaluation, engine, batch, own, asked, budget, **more)
        return {"index": batch["index"], **found}

    n_edits = evaluation.n_edits(lists.names, lists.sites)
    need = evaluation.need(session.engine_sizes, n_edits, control_sites(lists.uniform, lists.matched, lists.site_of))
    if completions is not None:
        longest = completions.longest
        need = need.lengthened(lambda columns: columns + longest)
    title = f"{name} on {session.split}"
    return run_pass(
        title,
        session.readable,
        WithinMemory(title, compute, session.memory_budget, need),
        session.shards(session.split),
        session.loader(session.split),
        folder / "shards",
        session.trainers,
    ).rows


def _digest(layer: Tensor, unit: Tensor) -> str:
    return hashlib.sha256(layer.numpy().tobytes() + unit.numpy().tobytes()).hexdigest()
