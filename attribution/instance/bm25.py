"""BM25 between the texts of test and train examples (Robertson et al. 1995), indexed by the library bm25s.

A lexical similarity that knows no model. Carries no loss sign.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import bm25s
import numpy as np
import torch
from torch import Tensor

from twinlens.attribution.errors import UserError
from twinlens.attribution.instance.inputs import TextInputs
from twinlens.attribution.instance.protocol import InstanceMethod

logging.getLogger("bm25s").setLevel(logging.WARNING)  # it tells of every step, to whoever logs everything

Variant = Literal["lucene", "robertson", "atire"]


@dataclass(frozen=True)
class BM25(InstanceMethod):
    """BM25 with the test text as query and the train texts as documents.

    Words are lower-cased runs of two or more letters or digits.

    Attributes:
        variant: formula of the inverse document frequency; `lucene`'s is never negative.
        k1: saturation of a word's count in a document.
        b: how far long documents are held back, 0 to 1.
        stopwords: `english` leaves out the most frequent English words, `none` nothing.
        top_k: length of the stored lists.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.bm25 import BM25
        >>> from twinlens.attribution.instance.inputs import TextInputs
        >>> train = TextInputs(["The bridge opened in May.", "Rain fell all day.", "The old bridge was closed."])
        >>> scorer = BM25(stopwords="none").prepare(train, memory_budget=2**20)
        >>> query = scorer.query(TextInputs(["When was the bridge closed?"]), torch.tensor([0]))
        >>> scorer.scores(query, 0, 3).round(decimals=2)  # [tests, train]; 0 where no word is shared
        tensor([[0.3600, 0.0000, 1.1200]], dtype=torch.float64)
    """

    papers: ClassVar[tuple[str, ...]] = ("robertson1995okapi", "lu2024bm25s")
    reads: ClassVar[str] = "text"
    explains = None
    sign: ClassVar[str] = "none: a similarity, carries no loss sign"
    unit: ClassVar[str] = "BM25"

    variant: Variant = "lucene"
    k1: float = 1.5
    b: float = 0.75
    stopwords: Literal["english", "none"] = "english"
    top_k: int = 100

    def __post_init__(self) -> None:
        if not (self.k1 >= 0 and 0 <= self.b <= 1):
            raise UserError(
                f"bm25 has k1={self.k1:g} and b={self.b:g}; expected k1 at least 0 and b from 0 to 1: use k1=1.5 "
                "b=0.75."
            )

    def words(self, texts: list[str]) -> list[list[str]]:
        """The words of each text."""
        stopwords = "english" if self.stopwords == "english" else []
        found = bm25s.tokenize(texts, stopwords=stopwords, return_ids=False, show_progress=False)
        return [[word for word in words if word] for words in found]  # type: ignore[union-attr]

    def prepare(self, train: TextInputs, memory_budget: int) -> BM25Scorer:
        """Index the train split.

        Raises:
            UserError: if no train text has a word.
        """
        documents = self.words(train.texts)
        if not any(documents):
            raise UserError(
                f"None of the {len(train)} train texts has a word that bm25 could match; expected words of two or more "
                "letters: check data.text, or use the method's stopwords=none."
            )
        index = bm25s.BM25(k1=self.k1, b=self.b, method=self.variant, dtype="float64")
        index.index(documents, create_empty_token=False, show_progress=False)
        return BM25Scorer(self, index.vocab_dict, _by_document(index, len(train)))


@dataclass(frozen=True)
class WordScores:
    """Score of each word in each train text, sparse, ordered by text: blocks of train rows are then slices.

    Attributes:
        starts: first entry of each text and their number, [n_train + 1].
        words: word of each entry, [entries].
        values: its score, [entries], float64.
        n_words: size of the vocabulary.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.bm25 import WordScores
        >>> values = torch.tensor([1.5, 0.5, 2.0])  # text 0 has the words 0 and 1, text 1 the word 1
        >>> stored = WordScores(torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1]), values, n_words=2)
        >>> counts = torch.tensor([[1.0], [2.0]])  # a test with word 0 once and word 1 twice
        >>> stored.times(counts, 0, 2)  # [texts, tests]
        tensor([[2.5000],
                [4.0000]])
    """

    starts: Tensor
    words: Tensor
    values: Tensor
    n_words: int

    def times(self, counts: Tensor, start: int, stop: int) -> Tensor:
        """Scores of texts start … stop − 1 for `counts` of words [words, tests], [stop − start, tests]."""
        first, last = int(self.starts[start]), int(self.starts[stop])
        lengths = self.starts[start : stop + 1].diff()
        rows = torch.repeat_interleave(torch.arange(stop - start), lengths)
        block = torch.sparse_coo_tensor(
            torch.stack([rows, self.words[first:last]]),
            self.values[first:last],
            (stop - start, self.n_words),
            check_invariants=False,
            is_coalesced=True,
        )
        return torch.sparse.mm(block, counts)


def _by_document(index: bm25s.BM25, n_documents: int) -> WordScores:
    """The index, which is ordered by word, ordered by document."""
    starts, rows, values = (np.asarray(index.scores[key]) for key in ("indptr", "indices", "data"))
    words = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    order = np.lexsort((words, rows))
    counts = np.bincount(rows, minlength=n_documents)
    return WordScores(
        torch.from_numpy(np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)),
        torch.from_numpy(words[order].astype(np.int64)),
        torch.from_numpy(values[order].astype(np.float64)),
        len(starts) - 1,
    )


@dataclass(frozen=True)
class BM25Scorer:
    """`InstanceScorer` of `BM25`; works on the CPU.

    Attributes:
        method: the settings.
        vocabulary: word → column.
        documents: score of each word in each train text.

    Example:
        >>> from twinlens.attribution.instance.bm25 import BM25
        >>> from twinlens.attribution.instance.inputs import TextInputs
        >>> scorer = BM25().prepare(TextInputs(["one red bridge", "two blue boats"]), memory_budget=2**20)
        >>> scorer.n_train, sorted(scorer.vocabulary), scorer.describe()["sign"]
        (2, ['blue', 'boats', 'bridge', 'one', 'red', 'two'], 'none: a similarity, carries no loss sign')
    """

    method: BM25
    vocabulary: dict[str, int]
    documents: WordScores
    n_train: int = field(init=False)
    bytes_per_query: int = field(init=False)
    bytes_per_row: int = field(init=False)
    bytes_held: int = field(init=False)

    def __post_init__(self) -> None:
        stored = len(self.documents.values)
        object.__setattr__(self, "n_train", len(self.documents.starts) - 1)
        object.__setattr__(self, "bytes_per_query", 8 * self.documents.n_words)
        object.__setattr__(self, "bytes_per_row", 32 * (stored // self.n_train + 1))
        object.__setattr__(self, "bytes_held", 16 * stored + 8 * self.n_train)

    def describe(self) -> dict[str, object]:
        """Settings, sign and unit."""
        return {
            "library": f"bm25s {bm25s.__version__}",
            "variant": self.method.variant,
            "k1": self.method.k1,
            "b": self.method.b,
            "stopwords": self.method.stopwords,
            "words": self.documents.n_words,
            "sign": self.method.sign,
            "unit": self.method.unit,
        }

    def query(self, test: TextInputs, index: Tensor) -> Tensor:
        """Count of each word of the train split in each test text, [words, tests], float64."""
        counts = torch.zeros(self.documents.n_words, len(test), dtype=torch.float64)
        for column, words in enumerate(self.method.words(test.texts)):
            known = [self.vocabulary[word] for word in words if word in self.vocabulary]
            counts[:, column] += torch.bincount(torch.tensor(known, dtype=torch.int64), minlength=len(counts))
        return counts

    def scores(self, query: Tensor, start: int, stop: int) -> Tensor:
        """[tests, stop − start], float64; 0 where no word is shared."""
        return self.documents.times(query, start, stop).T

    def self_influence(self) -> None:
        """None: being similar to oneself is no influence."""
        return None
