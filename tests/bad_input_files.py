"""Form of a bad input, and the files that bad inputs are made of."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from tests.running import SMALL_DEMO

Make = Callable[[Path, Path], object]
"""(working directory, a trained classifier of the demo's labels) → writes what the command reads."""
Entry = tuple[str, tuple[str, ...], tuple[str, ...], Make | None]
"""What is wrong, arguments, parts of the message, files: see `BadInput`."""


@dataclass(frozen=True)
class BadInput:
    """Something that a command is refused for.

    Attributes:
        section: heading in docs/errors.md.
        what: what is wrong, in words.
        arguments: of `python train.py`.
        told: parts that the message must hold.
        make: writes the files it needs.
        running: found only while the run goes on, so that it has written its configuration by then.
        environment: variables that are set for it, as (name, value).
    """

    section: str
    what: str
    arguments: tuple[str, ...]
    told: tuple[str, ...]
    make: Make | None = None
    running: bool = False
    environment: tuple[tuple[str, str], ...] = ()


GOOD = [json.dumps({"premise": f"p {n}", "hypothesis": f"h {n}", "label": "yes" if n % 2 else "no"}) for n in range(20)]
MNLI = ("data=mnli", "data.path=set")
COSQA = ("data=cosqa", "data.path=set", "data.validation_size=1")
TABLE = ("data=table", "method=gradsim", "evaluation=accuracy")
FILE = (*TABLE, "data.path=data.jsonl")
LOCAL = ("model=local", "model.path=checkpoint")
AS_IT_IS = ("fit=false", *LOCAL, *SMALL_DEMO)
REPLAY = ("--config-dir", "run", "--config-name", "config")
ADAPTER_WEIGHTS = "adapter_model.safetensors"
START = "defaults: [train, _self_]\n"


def row(premise: object, hypothesis: object, label: object) -> str:
    return json.dumps({"premise": premise, "hypothesis": hypothesis, "label": label})


# -- files -------------------------------------------------------------------------------------------------------


def lines(*rows: str, name: str = "data.jsonl") -> Make:
    """A text file of these lines."""
    return lambda folder, trained: (folder / name).write_text("".join(f"{line}\n" for line in rows), encoding="utf-8")


def content(data: bytes, name: str) -> Make:
    return lambda folder, trained: (folder / name).write_bytes(data)


def split_folder(**splits: Iterable[str]) -> Make:
    """A folder `set` with one JSONL file per split."""

    def make(folder: Path, trained: Path) -> None:
        (folder / "set").mkdir()
        for split, rows in splits.items():
            (folder / "set" / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in rows), encoding="utf-8")

    return make


def checkpoint(change: Callable[[Path], object] | None = None) -> Make:
    """A trained classifier in `checkpoint`, changed."""

    def make(folder: Path, trained: Path) -> None:
        copy = shutil.copytree(trained, folder / "checkpoint")
        if change is not None:
            change(copy)

    return make


def adapter(change: Callable[[Path], object] | None = None, **settings: object) -> Make:
    """An adapter in `checkpoint` on a trained classifier in `base`, with these settings in its file, changed."""
    known = {"peft_type": "LORA", "base_model_name_or_path": "../base", "target_modules": ["dense"], "r": 2}

    def make(folder: Path, trained: Path) -> None:
        shutil.copytree(trained, folder / "base")
        (folder / "checkpoint").mkdir()
        (folder / "checkpoint" / "adapter_config.json").write_text(json.dumps({**known, **settings}))
        save_file({"base_model.model.any.lora_A.weight": torch.ones(2, 2)}, folder / "checkpoint" / ADAPTER_WEIGHTS)
        if change is not None:
            change(folder / "checkpoint")

    return make


def edited(**values: object) -> Callable[[Path], object]:
    """Changes of a checkpoint's config.json; None removes a key."""

    def change(folder: Path) -> None:
        file = folder / "config.json"
        config = {**json.loads(file.read_text()), **values}
        file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))

    return change


def cut(name: str) -> Callable[[Path], object]:
    """The first half of one of a checkpoint's files."""

    def change(folder: Path) -> None:
        file = folder / name
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])

    return change


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def without_a_piece(folder: Path) -> None:
    """A tokenizer that names an unknown token of its own, which it does not have, and lacks a letter."""
    file = folder / "tokenizer.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    described["model"]["unk_token"] = "<nowhere>"
    described["model"]["vocab"].pop("w")
    described["model"]["merges"] = []
    file.write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")


def pickled(name: str, **more: object) -> Callable[[Path], object]:
    """A checkpoint with its weights in a pickle of that name, and more beside them."""

    def write(folder: Path) -> None:
        torch.save({**load_file(folder / "model.safetensors"), **more}, folder / name)
        (folder / "model.safetensors").unlink()

    return write


def reweighted(change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Callable[[Path], object]:
    """A checkpoint with other weights."""

    def write(folder: Path) -> None:
        weights = change(load_file(folder / "model.safetensors"))
        kept = {name: value.clone().contiguous() for name, value in weights.items()}
        save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})

    return write


def without_a_layer(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if ".layers.1." not in name}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})


def weights_elsewhere(folder: Path) -> None:
    """An index of weights that names a file outside the checkpoint."""
    weights = folder / "model.safetensors"
    names = dict.fromkeys(load_file(weights), "../elsewhere.safetensors")
    weights.rename(folder.parent / "elsewhere.safetensors")
    index = {"metadata": {"total_size": 1}, "weight_map": names}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def not_finite(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["score.weight"].fill_(float("nan"))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def config_file(text: str, name: str = "config") -> Make:
    """A configuration from somebody else in the folder `run`."""

    def make(folder: Path, trained: Path) -> None:
        (folder / "run").mkdir()
        (folder / "run" / f"{name}.yaml").write_text(text, encoding="utf-8")

    return make


def mnli(train: int = 0, matched: int = 12) -> Make:
    """A folder `set` with MNLI's matched validation file and, for a number of rows, its train file."""

    def make(folder: Path, trained: Path) -> None:
        (folder / "set").mkdir()
        for name, n in (("train", train), ("dev_matched", matched)):
            rows = [f"p {row}\th {row}\t{('entailment', 'neutral', 'contradiction')[row % 3]}" for row in range(n)]
            if n:
                text = "\n".join(["sentence1\tsentence2\tgold_label", *rows, ""])
                (folder / "set" / f"{name}.tsv").write_text(text, encoding="utf-8")

    return make


def questions(choices: int, letter: str = "A") -> Make:
    """A folder `set` with CommonsenseQA files; the last question has that many choices, the first of them so called."""

    def question(n: int, first: str) -> str:
        named = [{"label": label, "text": label} for label in [first, *"BCDEFGH"[: n - 1]]]
        return json.dumps({"answerKey": "B", "question": {"stem": "q", "question_concept": "c", "choices": named}})

    def make(folder: Path, trained: Path) -> None:
        (folder / "set").mkdir()
        for name in ("train", "dev"):
            rows = [question(5, "A")] * 4 + [question(choices, letter)]
            (folder / "set" / f"{name}_rand_split.jsonl").write_text("\n".join(rows), encoding="utf-8")

    return make
