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
from twinlens.data.data_report import Notes
from twinlens.data.file_readers import Need
from twinlens.data.input_form import Asked, InputForm, OwnForm, notes_of, own_length, special_tokens
from twinlens.data.labels import Fold
from twinlens.data.row_choice import RowChoice
from twinlens.data.sampling import ExplicitBatches
from twinlens.data.source_rows import SourceRows
from twinlens.data.templates import Template, parse_template
from twinlens.data.tokenise import CHOICE, Tokenisation
from twinlens.data.tokenizer_bounds import refuse_growing

__all__ = ["SourceRows", "TextDataModule"]

REFERENCE = "reference"
"""Name of the template that every dataset has."""


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
        template: a template name of the dataset or a format string over its text columns; None: `reference`, and for a
            classifier that is used as it is the one it was trained with here, or plain text.
        max_length: longest input in tokens; None: `default_max_length`, and for a classifier that is used as it is what
            it was trained with here, or no limit below what it says it can read; never more than its positions.
        batch_size: training rows per step.
        eval_batch_size: rows per batch wherever no weights change; `auto`: as many as fit, found before the first
            prediction, and in the validations of the fit, which come before, `batch_size`.
        num_workers: loader processes.
        limit: split → number of rows used, the first ones; None: all.
        select: split → row numbers of the split, applied before `limit`; None: all.
        seed: order of the training rows.
        split_seed: which rows belong to which split.
        bos: put the tokenizer's beginning-of-sequence token first where it has one; None: so it is, but a classifier
            that is used as it is gets the special tokens that its own tokenizer adds.
        cut: text column that loses tokens when the input is too long; None: that of `cut_column`.
        padding_side: `right` or `left`.

    Attributes:
        default_max_length: of the dataset, in tokens.
        papers, licence: what to cite, as keys of `callbacks/share/references.bib`, and whose licence the rows have; an
            entry `… if SETTING=VALUE|VALUE` holds for some values alone. So has `hub_dataset`, where rows come from.
        readout: what the labels number, a word of `twinlens.attribution.readouts.READOUTS`: classes, the choices of a
            question (with `n_choices`) or the vocabulary, where a label is the token that should come next.
        n_choices: candidate answers of every question, known before anything is read; None: plain classification.
        folds: split → how the model's classes are folded into those of the split's labels; mostly empty.
        pair_columns: the text columns of premise and hypothesis; None: no pairs.
        notes: what was done while reading and to the texts, one sentence each, once prepared.
        neuron_texts: texts of the train split that a run keeps of each listed neuron where nobody says.
        entailment_name: name of the class of pairs whose premise entails the hypothesis, among the classes and, in
            lower case too, among those of a fold.
    """

    default_max_length: ClassVar[int] = 512
    chosen_by: ClassVar[tuple[str, str]] = ("validation/accuracy", "max")  # first paper, appendix A
    readout: ClassVar[str] = ReadoutKind.name
    neuron_texts: ClassVar[int] = 0
    papers: ClassVar[tuple[str, ...]] = ()
    licence: ClassVar[tuple[str, ...]] = ()
    hub_dataset: ClassVar[tuple[str, ...]] = ()
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
        template: str | None = None,
        max_length: int | None = None,
        batch_size: int = 8,
        eval_batch_size: int | Literal["auto"] = 32,
        num_workers: int = 0,
        limit: Mapping[str, int | None] | None = None,
        select: Mapping[str, Sequence[int] | None] | None = None,
        seed: int = 0,
        split_seed: int = 0,
        bos: bool | None = None,
        cut: str | None = None,
        padding_side: str = "right",
    ) -> None:
        super().__init__()
        self.name = name
        self.path = path
        self._asked = Asked(template, max_length, bos)
        self.template = REFERENCE if template is None else template
        self.max_length = self.default_max_length if max_length is None else max_length
        self.bos = bos is not False
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size
        self.num_workers = num_workers
        self.row_choice = RowChoice(limit or {}, select or {})
        self.seed = seed
        self.split_seed = split_seed
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
        self.notes = Notes()
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

    def tokenisation(self, template: Template, tokenizer: Any, form: InputForm) -> Tokenisation:
        """How the rows that `load_splits` has read become token ids."""
        return Tokenisation(self.name, self.text_columns, self.plant_columns, self.n_choices, template, tokenizer, form)

    @property
    def reads(self) -> dict[str, Any]:
        """The form that a model is trained with: `template`, `max_length`, `bos`."""
        return {"template": self.template, "max_length": self.max_length, "bos": self.bos}

    def prepare(self, tokenizer: Any, own: OwnForm | None = None, positions: int | None = None) -> None:
        """Load, limit, select and tokenise all splits and fill `report`; a second call with the same tokenizer is free.

        Args:
            tokenizer: of the model.
            own: the form of a classifier that is used as it is, for what the settings leave open.
            positions: the most tokens that the model can read; None: as many as there are.

        Raises:
            UserError: see the readers; also an empty split, limit or select out of range, an example without a token.
        """
        if self._tokenizer is tokenizer:
            return
        form = self._form(tokenizer, own, positions)
        template = self.resolve_template()
        refuse_growing(tokenizer)
        self.notes = Notes()
        sources = self.load_splits()
        for line in self.row_choice.without_effect(self.name, sources):
            self.notes.say(line)
        choose = self.row_choice.used
        chosen = {split: choose(self.name, split, len(rows.source_index)) for split, rows in sources.items()}
        self.adjust_plants(sources, chosen)
        tokenisation = self.tokenisation(template, tokenizer, form)
        self.splits = {
            split: self.finish(split, tokenisation.split(split, rows, chosen[split]), tokenizer)
            for split, rows in sources.items()
        }
        self.report, self._tokenizer = tokenisation.report.as_dict(), tokenizer
        named = self.templates()
        used, trained = (named.get(name or "", name) for name in (self.template, self._own_template(own)))
        for line in notes_of(form, used or "", trained, own, tokenizer, self.max_length == positions):
            self.notes.say(line)

    def _form(self, tokenizer: Any, own: OwnForm | None, positions: int | None) -> InputForm:
        """What becomes of every text; sets `template`, `max_length` and `bos` where they are left open."""
        asked = self._asked
        self.template = asked.template or self._own_template(own) or REFERENCE
        self.max_length = asked.max_length or own_length(own, positions, self.default_max_length)
        special = special_tokens(tokenizer, asked.bos, own)
        self.bos = special.begins(tokenizer.bos_token_id) if own is not None else asked.bos is not False
        return InputForm(special, self.max_length, None if own is None else own.padding)

    def _own_template(self, own: OwnForm | None) -> str | None:
        """What the checkpoint was trained with, where these data know it; plain text of one from elsewhere."""
        if own is None or own.template is None:
            return None if own is None else self._plain_template()
        return own.template if own.template in self.templates() or "{" in own.template else None

    def _plain_template(self) -> str | None:
        """The text alone, where there is one text column."""
        return f"{{{self.text_columns[0]}}}" if len(self.text_columns) == 1 and self.n_choices is None else None

    def fingerprint(self, split: str) -> str:
        """sha256 of what the split means to a model: label names, fold, rows as (source_index, label, input_ids)."""
        digest = hashlib.sha256(json.dumps(self.label_names).encode())
        if split in self.folds:
            digest.update(json.dumps(asdict(self.folds[split])).encode())
        dataset = self._split(split).select_columns(["source_index", "label", "input_ids"])
        for row in dataset:
            digest.update(json.dumps([row["source_index"], row["label"], row["input_ids"]]).encode())
        return digest.hexdigest()

    @property
    def monitored(self) -> tuple[str, str] | None:
        """Metric by which a fit's best epoch is chosen, and whether its `max` or `min`; None: the last epoch counts."""
        return self.chosen_by if "validation" in self.splits else None

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
        # any id serves, since the mask decides; the tokenizer's own may lie beyond the model's vocabulary
        return PaddingCollator(0, self.padding_side)

    def _split(self, split: str) -> datasets.Dataset:
        if split not in self.splits:
            present = ", ".join(self.splits) or "none: call prepare(tokenizer) first"
            raise UserError(
                f"data={self.name} has no {split} split (there is: {present}), expected labelled rows for it: "
                "give data.path with that split, or use fit=false where nothing is trained."
            )
        return self.splits[split]

    def need_of(self, split: str) -> Need | None:
        """The rows of a file that holds a whole split, as far as they are needed."""
        rows = self.row_choice.needed(split)
        return None if rows is None else Need(rows)

    def _check_options(self) -> None:
        for option in ("max_length", "batch_size", "eval_batch_size"):
            value = getattr(self, option)
            if (option, value) != ("eval_batch_size", "auto") and value < 1:
                raise UserError(f"data.{option}={value}, expected at least 1: raise it.")
        if self.padding_side not in ("right", "left"):
            raise UserError(
                f"data.padding_side={self.padding_side!r}, expected right or left: use right unless a test needs left."
            )
