"""Texts of the train split that activate listed neurons most: one forward over the corpus, kept in the store.

`neurons/train/` has a row for every neuron in any list of the run's neuron methods; controls have none. A text counts
once for a neuron, with its strongest token. Special tokens, which stand in every text, are not looked at.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import torch
from torch import Tensor

from twinlens.attribution.errors import UserError, require_finite
from twinlens.attribution.method import Method
from twinlens.attribution.needed_memory import Need
from twinlens.attribution.neuron.ranking import ATTENTION, FFN, FIRST_ATTENTION, SITES
from twinlens.attribution.neuron.strongest_texts import Strongest, StrongestTexts, strongest_tokens
from twinlens.attribution.protocols import Batch, ExpertPlaces
from twinlens.callbacks.attribute.score_files import expert_columns, read_addresses, score_name
from twinlens.callbacks.passes.memory import WithinMemory
from twinlens.callbacks.passes.predict_pass import run_shards
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.passes.shards import Progress, factor_segments, read_shard
from twinlens.callbacks.store.files import link, write_yaml
from twinlens.callbacks.store.fingerprints import code_of
from twinlens.callbacks.store.formats import FORMAT, METHOD_FORMAT
from twinlens.callbacks.store.store import Finish
from twinlens.models.footprint import Footprint
from twinlens.models.token_activations import token_activations

STAGE = "neurons"
CORPUS = "train"
"""The split whose texts are searched."""
SHOWN = 3
"""Texts of each end whose words around the token are kept beside it, for pages."""
BEFORE, AFTER = 12, 6
"""Tokens around the one that is marked."""
ENDS = ("top", "bottom")
PARTS = ("activation", "position", "text")


def texts_kept(data: Any, asked: int | None) -> int:
    """How many texts of each neuron a run keeps: as asked, else what its data say.

    Args:
        asked: `neuron_texts`; None: nothing was said.
    """
    own = int(getattr(data, "neuron_texts", 0)) if CORPUS in data.splits else 0
    return own if asked is None else asked


def refuse_neuron_texts(session: Session, methods: Mapping[str, Method], asked: int | None) -> None:
    """Refuse, before anything is trained, texts of neurons that a run cannot have.

    Raises:
        UserError: a number below 0, data without train rows or with choices, or a run that lists no neuron.
    """
    if asked is None or asked == 0:
        return
    if asked < 0:
        raise UserError(f"neuron_texts={asked}, expected 0 or more texts of each neuron: write e.g. neuron_texts=50.")
    if CORPUS not in session.data.splits:
        raise UserError(
            f"neuron_texts={asked} searches the train split, and data={session.data.name} have only "
            f"{', '.join(session.data.splits)}; expected train rows: give data.train, or set neuron_texts=0."
        )
    if session.readout.of_sequences:
        raise UserError(
            f"neuron_texts={asked} names a token of a text, and a question of data={session.data.name} has a text for "
            "each choice; expected data whose rows are one text each: set neuron_texts=0."
        )
    if not any(map(lists_neurons, methods.values())):
        raise UserError(
            f"neuron_texts={asked} searches texts for the neurons in the run's lists, and method=[{','.join(methods)}] "
            "lists none; expected a neuron method: add e.g. ig, or set neuron_texts=0."
        )


def neuron_texts_stage(session: Session, methods: Mapping[str, Method], asked: int | None) -> None:
    """Search the train split for the texts of every listed neuron, or read what the store has; nothing where none are
    asked for, or listed.

    Args:
        session: its scores are there; the run folder gets `neurons/train` and `neurons/neurons.yaml`.
        methods: of the run, by name.
        asked: `neuron_texts`.
    """
    kept = texts_kept(session.data, asked)
    if not kept or session.readout.of_sequences:
        return
    addresses = listed_neurons(session, methods)
    if not len(addresses):
        return
    inputs = search_inputs(session, addresses, kept)
    labels = session.labels(split=CORPUS, neurons=len(addresses))
    title = f"texts of {len(addresses)} neurons"
    entry = session.store.get(STAGE, inputs, lambda folder: _build(session, addresses, kept, folder), labels, title)
    for part in (CORPUS, "neurons.yaml"):
        link(entry.path / part, session.folder / STAGE / part)


def search_inputs(session: Session, addresses: Tensor, kept: int) -> dict[str, Any]:
    """What the index depends on."""
    return {
        "weights": session.weights,
        "split": session.data.fingerprint(CORPUS),
        "precision": session.trainers.numbers,
        "code": code_of(__name__, session.data, {"_target_": session.model_target}),
        "kept": kept,
        "neurons": hashlib.sha256(addresses.numpy().tobytes()).hexdigest(),
    }


def listed_neurons(session: Session, methods: Mapping[str, Method]) -> Tensor:
    """Every neuron in a list of the explained split once, [neurons, 2]: layer and unit, attention neurons behind
    `FIRST_ATTENTION`; ordered by site, layer and unit."""
    found = [torch.empty(0, 2, dtype=torch.int64)]
    for name, method in methods.items():
        for seed in method.seeds if lists_neurons(method) else ():
            folder = session.scores[score_name(name, seed), session.split] / session.split
            pairs = torch.stack(read_addresses(folder, method.top_k), -1).flatten(0, 1).long()
            found.append(pairs[pairs[:, 0] >= 0].unique(dim=0))
    every = torch.cat(found).unique(dim=0)
    return every[(every[:, 1] >= FIRST_ATTENTION).long().argsort(stable=True)]


def lists_neurons(method: Any) -> bool:
    """Whether texts are searched for the neurons of a method's lists."""
    return method.names_neurons and not method.is_control


@dataclass
class _Search:
    """A pass over the corpus, called with one batch after the other; the last of a segment leaves the segment's lists.

    Args:
        addresses: of the neurons, see `listed_neurons`.
        kept: texts of each neuron and end.
        segments: of the pass.
    """

    session: Session
    addresses: Tensor
    kept: int
    segments: list[list[list[int]]]

    def __post_init__(self) -> None:
        model: Any = self.session.readable
        self.anatomy = model.engine().anatomy
        self.special = torch.tensor(sorted(model.tokenizer.all_special_ids), dtype=torch.int64)
        self.units = _by_layer(self.addresses, self.anatomy.n_layers)
        widest = max((len(units) for layers in self.units.values() for units in layers), default=0)
        need = corpus_need(self.session.footprint, widest, len(self.addresses))
        title = f"texts of {len(self.addresses)} neurons"
        self.cut = WithinMemory(title, self._strongest, self.session.memory_budget, need)
        self.progress = Progress(self.segments)
        self._start_segment()

    def __call__(self, batch: Batch) -> dict[str, Tensor]:
        done = self.cut(batch)
        for end, lists in self.lists.items():
            lists.update(done[f"{end}_activation"], done[f"{end}_position"], done["index"])
        if not self.progress.ends(batch["index"]):
            return {}
        found = {end: lists.result() for end, lists in self.lists.items()}
        self._start_segment()
        return {f"{end}_{part}": getattr(lists, part) for end, lists in found.items() for part in PARTS}

    def _start_segment(self) -> None:
        self.lists = {end: StrongestTexts(self.kept, end == "top") for end in ENDS}

    def _strongest(self, batch: Batch, budget: int) -> dict[str, Tensor]:
        found: dict[tuple[int, int], dict[str, Tensor]] = {}

        def take(site: int, layer: int, activation: Tensor, counts: Tensor, place: Tensor) -> None:
            require_finite(activation, f"an activation of layer {layer}", batch["index"])
            found[site, layer] = {
                f"{end}_{part}": values
                for end in ENDS
                for part, values in zip(PARTS, strongest_tokens(activation, counts, place, end == "top"), strict=False)
            }

        token_activations(self.anatomy, batch, self.units, self.special, take)
        every = [found[site, layer] for site, layers in self.units.items() for layer in range(len(layers))]
        return {"index": batch["index"], **{name: torch.cat([part[name] for part in every], 1) for name in every[0]}}


def corpus_need(footprint: Footprint, widest: int, n_units: int) -> Need:
    """Memory of a text: the forward, a layer's listed neurons at every token, and what is kept of all of them."""

    def each(columns: int) -> int:
        return footprint.forward(columns) + 24 * columns * widest + 32 * n_units

    return Need(each, each)


def _by_layer(addresses: Tensor, n_layers: int) -> dict[int, list[Tensor]]:
    """Site → units of every layer, in the order of the addresses."""
    attention = addresses[:, 1] >= FIRST_ATTENTION
    sites = {FFN: addresses[~attention], ATTENTION: addresses[attention] - torch.tensor([0, FIRST_ATTENTION])}
    return {site: [own[own[:, 0] == layer, 1] for layer in range(n_layers)] for site, own in sites.items() if len(own)}


def _build(session: Session, addresses: Tensor, kept: int, folder: Path) -> Finish:
    segments = factor_segments(session.data.splits[CORPUS], session.eval_batch_size)
    search = _Search(session, addresses, kept, segments)
    title = f"texts of {len(addresses)} neurons"
    place = folder / "shards"
    run_shards(title, session.readable, search, segments, session.loader(CORPUS), place, session.trainers)

    def finish() -> None:
        lists = {end: StrongestTexts(kept, end == "top") for end in ENDS}
        for number in range(len(segments)):
            part = read_shard(place, number)
            if part is None:
                raise FileNotFoundError(place)
            for end, found in lists.items():
                found.merge(Strongest(**{name: part[f"{end}_{name}"] for name in PARTS}))
        ends = {end: found.result() for end, found in lists.items()}
        words = _Words(session)
        datasets.Dataset(neuron_text_table(addresses, ends, words, session.footprint.experts)).save_to_disk(
            str(folder / CORPUS)
        )
        write_yaml(folder / "neurons.yaml", {**described(kept), "neurons": len(addresses)})

    return finish


def described(kept: int) -> dict[str, Any]:
    """What neurons.yaml says."""
    return {
        FORMAT: METHOD_FORMAT,
        "texts": kept,
        "split": CORPUS,
        "unit": "activation: what the down-projection, or the attention's output projection, reads of the neuron",
        "sign": "top: highest activations above 0; bottom: lowest below 0",
        "tokens": "each text once, with its strongest token; special tokens are left out",
    }


class _Words:
    """Tokens of the corpus as they are written."""

    def __init__(self, session: Session) -> None:
        model: Any = session.readable
        self.tokenizer = model.tokenizer
        self.rows = session.data.splits[CORPUS].select_columns(["input_ids"])
        self.ids: dict[int, list[int]] = {}
        self.words: dict[int, str] = {}

    def of(self, text: int) -> list[int]:
        """Token ids of a text."""
        if text not in self.ids:
            self.ids[text] = self.rows[text]["input_ids"]
        return self.ids[text]

    def token(self, text: int, position: int) -> str:
        """A token by itself."""
        token = self.of(text)[position]
        if token not in self.words:
            self.words[token] = self.tokenizer.decode([token])
        return self.words[token]

    def around(self, text: int, position: int) -> tuple[str, str, str]:
        """What stands before a token, what it adds, and what follows."""
        ids, first = self.of(text), max(0, position - BEFORE)
        stops = (position, position + 1, position + 1 + AFTER)
        before, marked, whole = (self.tokenizer.decode(ids[first:stop], skip_special_tokens=True) for stop in stops)
        return before, marked[len(before) :], whole[len(marked) :]


def neuron_text_table(
    addresses: Tensor, ends: Mapping[str, Strongest], words: _Words, experts: ExpertPlaces | None = None
) -> pyarrow.Table:
    """A row for every neuron: its address, and of both ends texts, positions, activations and tokens.

    `top_before`, `top_marked` and `top_after` are the words around the token of the first `SHOWN` entries.
    """
    attention = addresses[:, 1] >= FIRST_ATTENTION
    unit = addresses[:, 1] - FIRST_ATTENTION * attention
    columns: dict[str, pyarrow.Array] = {
        "site": pyarrow.array([SITES[ATTENTION if own else FFN] for own in attention.tolist()], pyarrow.string()),
        "layer": pyarrow.array(addresses[:, 0].int().numpy()),
        "unit": pyarrow.array(unit.int().numpy()),
        **expert_columns(experts, addresses[:, 0], unit, torch.where(attention, ATTENTION, FFN)),
    }
    for end, found in ends.items():
        places = [
            [(text, position) for text, position in zip(*lists, strict=True) if text >= 0]
            for lists in zip(found.text.tolist(), found.position.tolist(), strict=True)
        ]
        activation = [row[: len(own)] for row, own in zip(found.activation.tolist(), places, strict=True)]
        columns[f"{end}_index"] = pyarrow.array(
            [[text for text, _ in own] for own in places], pyarrow.list_(pyarrow.int64())
        )
        columns[f"{end}_position"] = pyarrow.array(
            [[position for _, position in own] for own in places], pyarrow.list_(pyarrow.int32())
        )
        columns[f"{end}_activation"] = pyarrow.array(activation, pyarrow.list_(pyarrow.float32()))
        strings = pyarrow.list_(pyarrow.string())
        columns[f"{end}_token"] = pyarrow.array([[words.token(*each) for each in own] for own in places], strings)
        around = [[words.around(*each) for each in own[:SHOWN]] for own in places]
        for number, name in enumerate(("before", "marked", "after")):
            columns[f"{end}_{name}"] = pyarrow.array([[each[number] for each in own] for own in around], strings)
    return pyarrow.table(columns)
