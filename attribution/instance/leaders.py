"""The running best of a stream of scores, the same in whatever pieces and order they come."""

from __future__ import annotations

import torch
from torch import Tensor

_INDEX_BITS = 32
_INDEX_MASK = (1 << _INDEX_BITS) - 1
_LOWEST = torch.iinfo(torch.int64).min


class Leaders:
    """Running k best of a stream of score blocks, for each test.

    Score and train row are packed into one int64, ordered by score and then by lower row: all keys differ, so the
    selection is the same in whatever pieces they come.

    Attributes:
        k: length of the lists.
        largest: whether the highest scores are kept, or the lowest.

    Example:
        >>> import torch
        >>> from twinlens.attribution.instance.leaders import Leaders
        >>> best = Leaders(k=2, largest=True)
        >>> best.update(torch.tensor([[0.1, 0.9]]), torch.tensor([0, 1]))  # one test, train rows 0 and 1
        >>> best.update(torch.tensor([[0.5, 0.9]]), torch.tensor([2, 3]))
        >>> best.result()  # of equal scores the lower row comes first
        (tensor([[1, 3]]), tensor([[0.9000, 0.9000]]))
    """

    def __init__(self, k: int, largest: bool) -> None:
        self.k = k
        self.largest = largest
        self._keys: Tensor | None = None  # [tests, at most k], in no order
        self._floor: Tensor | None = None  # [tests], see `floor`

    def update(self, scores: Tensor, rows: Tensor, tests: Tensor | None = None) -> None:
        """Take in the scores of a block.

        Args:
            scores: [tests, rows], float32.
            rows: train rows, [rows], or [tests, rows] where each test has its own.
            tests: which tests the scores are of, [tests], once all lists are full; None: all.
        """
        keys = self._hopeful(scores, rows, _of(tests, self._floor))
        held = _of(tests, self._keys)
        if held is not None:
            keys = torch.cat([held, keys], 1)
        if keys.shape[1] > self.k:
            keys = keys.topk(self.k, dim=1, sorted=False).values
        floor = _unpack(keys.amin(1))[1] if keys.shape[1] == self.k else None
        if tests is None:
            self._keys, self._floor = keys, floor
        else:
            assert self._keys is not None
            assert self._floor is not None
            assert floor is not None
            self._keys[tests], self._floor[tests] = keys, floor

    def floor(self) -> Tensor | None:
        """The score that a further one has to reach to enter each list, [tests], signed so that higher is better.

        None while the lists are not full.
        """
        return self._floor

    def result(self) -> tuple[Tensor, Tensor]:
        """Train rows and scores, best first, [tests, k], on the CPU."""
        assert self._keys is not None
        index, scores = _unpack(self._keys.cpu().sort(dim=1, descending=True).values)
        return index, scores if self.largest else 0.0 - scores

    def _hopeful(self, scores: Tensor, rows: Tensor, floor: Tensor | None) -> Tensor:
        """Keys of the scores that can still enter a list, [tests, most of any test], filled up with the lowest key.

        Few can, and finding them costs a fifth of selecting among all; where many can, as with many equal scores, the
        keys of all.
        """
        n_rows = scores.shape[1]
        if floor is None and n_rows > 4 * self.k:
            enough = scores.topk(self.k, dim=1, largest=self.largest, sorted=False).values
            floor = enough.amin(1) if self.largest else -enough.amax(1)
        if floor is None:
            return _pack(self._signed(scores), rows)
        # an equal score enters where its row is lower
        hopeful = scores >= floor[:, None] if self.largest else scores <= -floor[:, None]
        most = n_rows // 4
        if int(hopeful.count_nonzero()) > most * len(scores):  # before their places take memory
            return _pack(self._signed(scores), rows)
        tests, columns = hopeful.nonzero(as_tuple=True)  # ordered by test
        counts = tests.bincount(minlength=len(scores))  # a sum over the mask would make integers of it first
        widest = int(counts.max()) if len(counts) else 0
        if widest > most:
            return _pack(self._signed(scores), rows)
        places = torch.arange(len(tests), device=tests.device) - (counts.cumsum(0) - counts)[tests]
        keys = torch.full((len(scores), widest), _LOWEST, device=scores.device)
        found = self._signed(scores[tests, columns])
        keys[tests, places] = _pack(found, rows[columns] if rows.dim() == 1 else rows[tests, columns])
        return keys

    def _signed(self, scores: Tensor) -> Tensor:
        """Higher is better."""
        return scores if self.largest else -scores


def _of(tests: Tensor | None, values: Tensor | None) -> Tensor | None:
    """What is held of some tests, of all where they are None."""
    return values if values is None or tests is None else values[tests]


def _pack(scores: Tensor, rows: Tensor) -> Tensor:
    """Keys that sort like (score, −row)."""
    bits = (scores + 0.0).view(torch.int32)  # + 0.0 turns −0 into 0, its equal
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # reverses the order of negative floats, whose bits grow downwards
    return (ordered.to(torch.int64) << _INDEX_BITS) | (_INDEX_MASK - rows)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and scores of keys."""
    ordered = (keys >> _INDEX_BITS).to(torch.int32)
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return _INDEX_MASK - (keys & _INDEX_MASK), bits.view(torch.float32)
