"""Inputs of evaluations: scores, rankings, lists, texts and labels of a run, in the shapes they ask for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor

from twinlens.attribution.evaluation.artifacts import Pair
from twinlens.attribution.evaluation.diversity import TrainFacts
from twinlens.attribution.evaluation.ground_truth.cluster_removal import AskedTogether
from twinlens.attribution.evaluation.instance_lists import InstanceLists
from twinlens.attribution.evaluation.marks import Marks
from twinlens.attribution.evaluation.needs import Available
from twinlens.attribution.evaluation.overlap import ComparedInstances, ComparedNeurons
from twinlens.attribution.evaluation.parts import KINDS, by_column, by_label, by_outcome
from twinlens.attribution.evaluation.refits import Reference
from twinlens.attribution.evaluation.result import Result
from twinlens.attribution.evaluation.train_ranking import RankBy, train_ranking
from twinlens.attribution.instance.protocol import InstanceScores
from twinlens.attribution.method import MethodKind
from twinlens.callbacks.attribute.group_scores import GROUPS, groups_of
from twinlens.callbacks.attribute.score_files import read_addresses, score_name
from twinlens.callbacks.passes.explain import LENSES
from twinlens.callbacks.passes.session import Session
from twinlens.data.marked_rows import EVIDENCE

# -- methods -----------------------------------------------------------------------------------------------------


def of_kind(methods: Mapping[str, Any], *kinds: MethodKind) -> dict[str, Any]:
    """The methods of some kinds, by name; those that score heads or layers are of none."""
    return {name: method for name, method in methods.items() if method.kind in kinds}


def available(session: Session, methods: Mapping[str, Any], fits: bool) -> Available:
    """What the run has for its evaluations."""
    data = session.data
    shared = set(data.splits[session.split].column_names)
    if "train" in data.splits:
        shared &= set(data.splits["train"].column_names)
    else:
        shared = set()
    twins = 0
    if "twin" in data.plant_columns:
        twins = int((session.predictions[session.split].column("twin")[kept_rows(session)] >= 0).sum())
        shared.add("twin")
    return Available(
        instance=tuple(of_kind(methods, "instance")),
        neuron=tuple(of_kind(methods, "neuron")),
        ia_neurons=tuple(of_kind(methods, "ia_neurons")),
        with_seeds=frozenset(name for name, method in methods.items() if method.draws),
        columns=frozenset(shared),
        pairs=set(pair_columns(session)) <= shared and bool(pair_columns(session)),
        twins=twins,
        fits=fits,
        groups=len(groups_of(session, session.split)),
        units=tuple(name for name, method in methods.items() if method.reads == "units"),
    )


def kept_rows(session: Session) -> Tensor:
    """Rows of the explained split that no lens leaves out (`Targets.left_out`), [rows], int64."""
    if session.explain.instance.against is None and session.explain.neuron.against is None:
        return torch.arange(len(session.predictions[session.split].dataset))
    left_out = [session.targets(lens, session.split).left_out for lens in LENSES]
    return torch.nonzero(~torch.stack(left_out).any(0))[:, 0]


# -- stored scores -----------------------------------------------------------------------------------------------


def score_folder(session: Session, name: str, seed: int | None) -> Path:
    """Folder of a method's stored scores of the explained split: one folder per split, `train_summary` beside them."""
    return session.scores[score_name(name, seed), session.split]


def scores_of(session: Session, name: str, seed: int | None) -> datasets.Dataset:
    """The stored scores of a method of this run, of the rows that are not left out, torch-formatted."""
    stored = datasets.load_from_disk(str(score_folder(session, name, seed) / session.split))
    kept = kept_rows(session)
    return (stored if len(kept) == len(stored) else stored.select(kept.tolist())).with_format("torch")


def asked_together(session: Session, methods: Mapping[str, Any]) -> dict[str, list[AskedTogether]]:
    """Groups of queries by method that draws nothing, each with the documents of its first cluster."""
    if not groups_of(session, session.split):
        return {}
    place = {row: number for number, row in enumerate(kept_rows(session).tolist())}
    found = {}
    for name, method in of_kind(methods, "instance").items():
        if method.draws:
            continue
        folder = score_folder(session, name, None) / GROUPS
        if not folder.is_dir():  # all queries of all groups are left out
            continue
        stored = datasets.load_from_disk(str(folder))
        found[name] = [
            AskedTogether(
                row["group"],
                torch.tensor([place[query] for query in row["queries"] if query in place], dtype=torch.int64),
                torch.tensor(sorted({doc for doc, own in zip(row["top_index"], row["top_cluster"], strict=True)
                                     if own == 0}), dtype=torch.int64),
            )
            for row in stored
        ]  # fmt: skip
    return found


def train_summary(session: Session, name: str, seed: int | None) -> dict[str, Tensor]:
    """Columns of what all explained examples together say of each train row, [n_train] each."""
    rows = datasets.load_from_disk(str(score_folder(session, name, seed) / "train_summary")).with_format("torch")
    return {column: rows[column][:] for column in rows.column_names}


def instance_lists(session: Session, name: str, method: Any) -> InstanceLists:
    """A method's lists of all seeds, with the planted twins where the data have them."""
    fields = ("index", "top_index", "top_score", "bottom_index", "bottom_score")
    runs = []
    for seed in method.seeds:
        rows = scores_of(session, name, seed)
        runs.append(InstanceScores(*(rows[field][:] for field in fields)))
    twin = against = None
    if "twin" in session.data.plant_columns:
        kept = kept_rows(session)
        twin = session.predictions[session.split].column("twin")[kept]
        against = twins_against(session, twin, kept) if method.explains == "instance" else None
    return InstanceLists.of(runs, method.top_k, twin, against, marks_of(session))


def marks_of(session: Session) -> Marks | None:
    """Which train rows tell what a test asks, by the column `evidence` of both; None where the data have none."""
    if EVIDENCE not in session.data.plant_columns or "train" not in session.data.splits:
        return None
    kept, tests = kept_rows(session).tolist(), session.data.splits[session.split]
    asked, kinds = list(tests[EVIDENCE][:]), list(tests["type"][:])
    train = list(session.data.splits["train"][EVIDENCE][:])
    return Marks.of(train, [asked[row] for row in kept], [kinds[row] for row in kept])


def twins_against(session: Session, twin: Tensor, kept: Tensor) -> Tensor:
    """Tests whose planted twin speaks against what is explained of them, as its label is another, [tests], bool.

    Args:
        twin: train row of each test's twin, −1 where it has none, [tests].
        kept: rows of the tests in their split, [tests].
    """
    targets = session.targets("instance", session.split).at(kept)
    label = session.predictions["train"].column("label")[twin.clamp(min=0)]
    label = label if targets.fold is None else targets.fold[label]
    other = label != targets.target if targets.against is None else label == targets.against
    return other & (twin >= 0)


def best_rows(session: Session, methods: Mapping[str, Any]) -> dict[str, Tensor]:
    """Best train rows of each instance method, [seeds, tests, k]."""
    return {
        name: instance_lists(session, name, method).top_index for name, method in of_kind(methods, "instance").items()
    }


def rankings(session: Session, methods: Mapping[str, Any], rank_by: RankBy) -> dict[str, Tensor]:
    """Train rows, best first, of each instance method, [seeds, n_train]."""
    return {
        name: torch.stack([train_ranking(train_summary(session, name, seed), rank_by) for seed in method.seeds])
        for name, method in of_kind(methods, "instance").items()
    }


def seedless_rankings(session: Session, methods: Mapping[str, Any], rank_by: RankBy) -> dict[str, Tensor]:
    """Train rows, best first, of each instance method that draws no random numbers, [n_train]."""
    without = {name: method for name, method in methods.items() if not method.draws}
    return {name: runs[0] for name, runs in rankings(session, without, rank_by).items()}


def compared_instances(session: Session, methods: Mapping[str, Any], rank_by: RankBy) -> dict[str, ComparedInstances]:
    """Rankings and lists of each instance method."""
    lists = best_rows(session, methods)
    return {name: ComparedInstances(runs, lists[name]) for name, runs in rankings(session, methods, rank_by).items()}


def compared_neurons(session: Session, methods: Mapping[str, Any], kind: MethodKind) -> dict[str, ComparedNeurons]:
    """Lists of each neuron method of a kind, as long as the method's `top_k`."""
    found, kept = {}, kept_rows(session)
    for name, method in of_kind(methods, kind).items():
        layers, units = [], []
        for seed in method.seeds:
            layer, unit = read_addresses(score_folder(session, name, seed) / session.split, method.top_k)
            layers.append(layer[kept])
            units.append(unit[kept])
        found[name] = ComparedNeurons(torch.stack(layers), torch.stack(units))
    return found


def padded(lists: Sequence[Sequence[int]], length: int) -> Tensor:
    """Ragged lists as int32 [examples, length], −1 where a list has ended."""
    return torch.tensor([([*row] + [-1] * length)[:length] for row in lists], dtype=torch.int32)


# -- labels and texts --------------------------------------------------------------------------------------------


def fold_of(session: Session, split: str) -> Any:
    """How a split's labels are folded from the model's classes, None where they are its classes."""
    return session.data.folds.get(split)


def folded_predictions(session: Session, split: str) -> tuple[Tensor, Tensor, int]:
    """Predicted and gold classes as the split's labels count them, [examples] each, and the number of these classes."""
    predictions, fold = session.predictions[split], fold_of(session, split)
    predicted, label = predictions.column("prediction"), predictions.column("label")
    if fold is None:
        return predicted, label, len(session.data.label_names)
    return torch.tensor(fold.of_class)[predicted], label, len(fold.names)


def parts_of(session: Session, split: str, of_outcome: bool = True) -> dict[str, Tensor]:
    """Parts of a split that results are broken down by, bool [examples] each; none where the vocabulary is read.

    By gold label, by right and wrong predictions, and by the cases of HANS where the split has its columns.

    Args:
        session: of the run.
        split: whose examples.
        of_outcome: whether right and wrong predictions are parts.
    """
    if session.readout.of_vocabulary:
        return {}
    predicted, label, _ = folded_predictions(session, split)
    fold, rows = fold_of(session, split), session.data.splits[split]
    parts = by_label(label, session.data.label_names if fold is None else fold.names)
    parts |= by_outcome(predicted, label) if of_outcome else {}
    for kind in KINDS[2:]:
        if kind in rows.column_names:
            parts |= by_column(kind, list(rows[kind][:]))
    return parts


def kinds_of(session: Session) -> dict[str, Tensor]:
    """Kept rows of the explained split by their type, bool [tests] each; none where all have the same."""
    rows = session.data.splits[session.split]
    if "type" not in rows.column_names:
        return {}
    every = list(rows["type"][:])
    types = [every[row] for row in kept_rows(session).tolist()]
    names = [name for name in dict.fromkeys(types) if name]
    return {name: torch.tensor([own == name for own in types]) for name in names} if len(names) > 1 else {}


def answers_of(session: Session, split: str) -> tuple[Tensor, Tensor, Tensor, list[str]]:
    """Rank and probability of each prompt's answer token, its id, [prompts] each, and the prompts' types."""
    predictions = session.predictions[split]
    rank, prob, label = (predictions.column(name) for name in ("target_rank", "target_prob", "label"))
    return rank, prob, label, list(session.data.splits[split]["type"][:])


def reference(session: Session) -> Reference:
    """What refitted models are compared with on the explained split."""
    predictions, fold = session.predictions[session.split], fold_of(session, session.split)
    of_class = None if fold is None else torch.tensor(fold.of_class)
    train = session.predictions.get("train")
    of_train = None if train is None else train.column("label")
    names = session.data.label_names
    return Reference(predictions.column("prediction"), predictions.column("label"), of_class, of_train, names)


def pair_columns(session: Session) -> tuple[str, ...]:
    """Names of the premise's and the hypothesis's column, empty where the data are no pairs."""
    return session.data.pair_columns or ()


def entailed_class(session: Session, split: str) -> int:
    """The class of entailment, as the split's labels count them."""
    fold = fold_of(session, split)
    names = session.data.label_names if fold is None else fold.names
    return [name.lower() for name in names].index(str(session.data.entailment_name).lower())


def pairs_of(session: Session, split: str) -> list[Pair]:
    """(premise, hypothesis) of every example."""
    rows, (premise, hypothesis) = session.data.splits[split], pair_columns(session)
    return list(zip(rows[premise][:], rows[hypothesis][:], strict=True))


def texts_of(session: Session, split: str, column: str) -> list[str]:
    """A text column of a split."""
    return list(session.data.splits[split][column][:])


def train_facts(session: Session) -> TrainFacts:
    """Hidden states, losses and tokens of the train split; of several sequences, the predicted one's hidden state."""
    predictions = session.predictions["train"]
    hidden, prob = predictions.features, predictions.column("prob")
    rows, label = torch.arange(len(prob)), predictions.column("label")
    if hidden.dim() == 3:
        hidden = hidden[rows, predictions.column("prediction")]
    loss = -prob[rows, label].double().clamp_min(torch.finfo(torch.float32).tiny).log()
    loss = loss.masked_fill(label < 0, torch.nan)
    inputs = session.data.splits["train"]["input_ids"][:]
    if inputs and inputs[0] and isinstance(inputs[0][0], int):
        inputs = [[sequence] for sequence in inputs]
    lengths = [sum(map(len, sequences)) / len(sequences) for sequences in inputs]
    tokens = [list(chain.from_iterable(sequences)) for sequences in inputs]
    return TrainFacts(hidden, loss, tokens, torch.tensor(lengths, dtype=torch.float64))


def skipped(name: str, needs: str) -> list[Result]:
    """The results of an evaluation that the run does not serve: none, and a line that says why."""
    print(f"{name}: skipped: needs {needs}", flush=True)
    return []
