"""TextDataModule: what all datasets share, from rows of a file to padded batches."""

from __future__ import annotations

import hashlib
import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, ClassVar, Literal

import datasets
from lightning import LightningDataModule
from torch.utils.data import DataLoader
from torch.utils.data.distributed import DistributedSampler

from twinlens.attribution.errors import UserError
from twinlens.attribution.readouts import ReadoutKind
from twinlens.data.collate import PaddingCollator
from twinlens.data.labels import Fold
from twinlens.data.sampling import ExplicitBatches, used_rows
from twinlens.data.source_rows import SourceRows
from twinlens.data.templates import Template, parse_template
from twinlens.data.tokenise import CHOICE, Tokenisation

__all__ = ["SPLITS", "SourceRows", "TextDataModule"]

SPLITS = ("train", "validation", "test")


class TextDataModule(LightningDataModule):
    """A labelled text dataset with train, validation and test splits; subclasses say where the rows come from.

    After `prepare(tokenizer)`, `splits` maps split names to `datasets.Dataset` with the columns `index` (0 … n−1 in the
    split as used), `source_index` (row in the source file), the text columns, `label` (int, -1 when unlabelled), the
    plant columns and `input_ids`. A split that the data do not have is absent from `splits`.

    In multiple choice (`n_choices`) a row is one question: `choices` lists its candidate answers, `label` is the number
    of the right one, `label_names` are A, B, … and `input_ids` holds one list of ids per choice.

    Args:
        name: the dataset's name in results and directories.
        path: where the files are; None: the dataset's own source.
        template: a template name of the dataset or a format string over its text columns.
        max_length: longest input in tokens.
        batch_size: training rows per step.
        eval_batch_size: rows per batch wherever no weights change; `auto`: as many as fit, found before the first
            prediction, and in the validations of the fit, which come before, `batch_size`.
        num_workers: loader processes.
        limit: split → number of rows used, the first ones; None: all.
        select: split → row numbers of the split, applied before `limit`; None: all.
        seed: order of the training rows.
        split_seed: which rows belong to which split.
        bos: put the tokenizer's beginning-of-sequence token first where it has one.
        cut: text column that loses tokens when the input is too long; None: that of `cut_column`.
        padding_side: `right` or `left`.

    Attributes:
        readout: what the labels number, a word of `twinlens.attribution.readouts.READOUTS`: classes, the choices of a
            question (with `n_choices`) or the vocabulary, where a label is the token that should come next.
        n_choices: candidate answers of every question, known before anything is read; None: plain classification.
        folds: split → how the model's classes are folded into those of the split's labels; mostly empty.
        pair_columns: the text columns of premise and hypothesis; None: no pairs.
        entailment_name: name of the class of pairs whose premise entails the hypothesis, among the classes and, in
            lower case too, among those of a fold.
    """

    readout: ClassVar[str] = ReadoutKind.name
    name: str
    label_names: list[str]
    text_columns: list[str]
    plant_columns: list[str]
    n_choices: int | None
    folds: dict[str, Fold]
    pair_columns: tuple[str, str] | None
    entailment_name: str | None

    def __init__(
        self,
        name: str,
        path: Any = None,
        template: str = "reference",
        max_length: int = 512,
        batch_size: int = 8,
        eval_batch_size: int | Literal["auto"] = 32,
        num_workers: int = 0,
        limit: Mapping[str, int | None] | None = None,
        select: Mapping[str, Sequence[int] | None] | None = None,
        seed: int = 0,
        split_seed: int = 0,
        bos: bool = True,
        cut: str | None = None,
        padding_side: str = "right",
    ) -> None:
        super().__init__()
        self.name = name
        self.path = path
        self.template = template
        self.max_length = max_length
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.limit = dict(limit or {})
        self.select = dict(select or {})
        self.seed = seed
        self.split_seed = split_seed
        self.bos = bos
        self.cut = cut
        self.padding_side = padding_side
        self.text_columns = []
        self.plant_columns = []
        self.label_names = []
        self.n_choices = None
        self.folds = {}
        self.pair_columns = None
        self.entailment_name = None
        self.splits: dict[str, datasets.Dataset] = {}
        self.report: dict[str, dict[str, Any]] = {}
        self._tokenizer: Any = None
        self._check_options()

    @abstractmethod
    def load_splits(self) -> dict[str, SourceRows]:
        """Read the splits that exist and set `label_names`; reads nothing twice and changes nothing else."""

    @abstractmethod
    def templates(self) -> dict[str, str]:
        """The named templates of the dataset, as format strings."""

    def resolve_template(self) -> Template:
        """The template that `template` and `cut` name.

        Without `cut`, the column is that of `cut_column`, never a choice.
        """
        named = self.templates()
        if self.template not in named and "{" not in self.template:
            raise UserError(
                f"data.template={self.template!r} is no template of data={self.name}, expected {', '.join(named)} or a "
                f"format string such as {named['reference']!r}: use one of these."
            )
        fields = [*self.text_columns, *([CHOICE] if self.n_choices else [])]
        parsed = parse_template(named.get(self.template, self.template), fields, self.cut)
        if self.cut is not None:
            return parsed
        # choices that lost their ends could become the same
        columns = [column for column in parsed.columns if column != CHOICE] or parsed.columns
        return replace(parsed, cut=self.cut_column(columns))

    def cut_column(self, shown: Sequence[str]) -> str:
        """Which of the columns that the template shows is cut without `cut`: the evidence, or else the last one."""
        return "evidence" if "evidence" in shown else shown[-1]

    def adjust_plants(self, sources: dict[str, SourceRows], chosen: Mapping[str, list[int]]) -> None:
        """Rewrite plant columns that point at rows of another split, given the rows used of each; none by default."""

    def finish(self, split: str, rows: datasets.Dataset, tokenizer: Any) -> datasets.Dataset:
        """A tokenised split with what else the tokenizer decides about it; as it is by default."""
        return rows

    def prepare(self, tokenizer: Any) -> None:
        """Load, limit, select and tokenise all splits and fill `report`; a second call with the same tokenizer is free.

        Raises:
            UserError: see the readers; also an empty split, limit or select out of range, an example without a token.
        """
        if self._tokenizer is tokenizer:
            return
        template = self.resolve_template()
        sources = self.load_splits()
        self._refuse_absent_splits(sources)
        chosen = {split: self._choose(split, len(rows.source_index)) for split, rows in sources.items()}
        self.adjust_plants(sources, chosen)
        tokenisation = Tokenisation(
            self.name,
            self.text_columns,
            self.plant_columns,
            self.n_choices,
            template,
            tokenizer,
            self.max_length,
            self.bos,
        )
        self.splits = {
            split: self.finish(split, tokenisation.split(split, rows, chosen[split]), tokenizer)
            for split, rows in sources.items()
        }
        self.report, self._tokenizer = tokenisation.report.as_dict(), tokenizer

    def fingerprint(self, split: str) -> str:
        """sha256 of what the split means to a model: label names, fold, rows as (source_index, label, input_ids)."""
        digest = hashlib.sha256(json.dumps(self.label_names).encode())
        if split in self.folds:
            digest.update(json.dumps(asdict(self.folds[split])).encode())
        dataset = self._split(split).select_columns(["source_index", "label", "input_ids"])
        for row in dataset:
            digest.update(json.dumps([row["source_index"], row["label"], row["input_ids"]]).encode())
        return digest.hexdigest()

    def train_dataloader(self) -> DataLoader:
        """Shuffled batches; the order is a function of (seed, epoch) alone, so a resumed run sees the same one."""
        dataset = self._split("train")
        replicas, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler: DistributedSampler = DistributedSampler(
            dataset,  # type: ignore[arg-type]
            num_replicas=replicas,
            rank=rank,
            shuffle=True,
            # the sampler draws from seed + epoch: far-apart seeds keep two runs from sharing shifted epochs
            seed=self.seed * 10_007,
        )
        return self._loader(dataset, batch_size=self.batch_size, sampler=sampler)

    def val_dataloader(self) -> DataLoader:
        """The validation split in its own order."""
        size = self.batch_size if self.eval_batch_size == "auto" else self.eval_batch_size
        return self._loader(self._split("validation"), batch_size=size, shuffle=False)

    def predict_dataloader_for(self, split: str, batches: Sequence[Sequence[int]]) -> DataLoader:
        """Exactly these batches of row numbers, in this order."""
        rows = ExplicitBatches(self._columns(self._split(split)), batches, self._collate())
        # ready batches as items: Lightning would rebuild a batch sampler of its own in the predict loop
        return DataLoader(rows, batch_size=None, num_workers=self.num_workers)

    def _loader(self, dataset: datasets.Dataset, **options: Any) -> DataLoader:
        return DataLoader(
            self._columns(dataset),  # type: ignore[arg-type]
            collate_fn=self._collate(),
            num_workers=self.num_workers,
            **options,
        )

    def _columns(self, dataset: datasets.Dataset) -> datasets.Dataset:
        return dataset.select_columns(["index", "input_ids", "label"])

    def _collate(self) -> PaddingCollator:
        pad = self._tokenizer.pad_token_id
        return PaddingCollator(0 if pad is None else pad, self.padding_side)

    def _split(self, split: str) -> datasets.Dataset:
        if split not in self.splits:
            present = ", ".join(self.splits) or "none: call prepare(tokenizer) first"
            raise UserError(
                f"data={self.name} has no {split} split (there is: {present}), expected labelled rows for it: "
                "give data.path with that split, or use fit=false where nothing is trained."
            )
        return self.splits[split]

    def _choose(self, split: str, n_rows: int) -> list[int]:
        if n_rows == 0:
            raise UserError(
                f"The {split} split of data={self.name} is empty, expected at least one row: check data.path."
            )
        return used_rows(split, n_rows, self.select.get(split), self.limit.get(split))

    def _refuse_absent_splits(self, splits: Mapping[str, Any]) -> None:
        for option, values in (("limit", self.limit), ("select", self.select)):
            for split, value in values.items():
                if value is not None and split not in splits:
                    raise UserError(
                        f"data.{option}.{split} is set, but data={self.name} has only the splits {', '.join(splits)}: "
                        "set it to null."
                    )

    def _check_options(self) -> None:
        for option, values in (("limit", self.limit), ("select", self.select)):
            unknown = [split for split in values if split not in SPLITS]
            if unknown:
                raise UserError(
                    f"data.{option}.{unknown[0]} names no split, expected one of {', '.join(SPLITS)}: use one of these."
                )
        for option in ("max_length", "batch_size", "eval_batch_size"):
            value = getattr(self, option)
            if (option, value) != ("eval_batch_size", "auto") and value < 1:
                raise UserError(f"data.{option}={value}, expected at least 1: raise it.")
        if self.padding_side not in ("right", "left"):
            raise UserError(
                f"data.padding_side={self.padding_side!r}, expected right or left: use right unless a test needs left."
            )
