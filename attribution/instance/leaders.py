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
    """

    def __init__(self, k: int, largest: bool) -> None:
        self.k = k
        self.largest = largest
        self._keys: Tensor | None = None  # [tests, at most k], in no order

    def update(self, scores: Tensor, rows: Tensor, tests: Tensor | None = None) -> None:
        """Take in the scores of a block.

        Args:
            scores: [tests, rows], float32.
            rows: train rows, [rows], or [tests, rows] where each test has its own.
            tests: which tests the scores are of, [tests], once all lists are full; None: all.
        """
        signed = scores if self.largest else -scores
        held = self._keys if self._keys is None or tests is None else self._keys[tests]
        keys = self._hopeful(signed, rows, held)
        if held is not None:
            keys = torch.cat([held, keys], 1)
        if keys.shape[1] > self.k:
            keys = keys.topk(self.k, dim=1, sorted=False).values
        if tests is None:
            self._keys = keys
        else:
            assert self._keys is not None
            self._keys[tests] = keys

    def floor(self) -> Tensor | None:
        """The score that a further one has to reach to enter each list, [tests], signed so that higher is better.

        None while the lists are not full.
        """
        if self._keys is None or self._keys.shape[1] < self.k:
            return None
        return _unpack(self._keys.amin(1))[1]

    def result(self) -> tuple[Tensor, Tensor]:
        """Train rows and scores, best first, [tests, k], on the CPU."""
        assert self._keys is not None
        index, scores = _unpack(self._keys.cpu().sort(dim=1, descending=True).values)
        return index, scores if self.largest else 0.0 - scores

    def _hopeful(self, signed: Tensor, rows: Tensor, held: Tensor | None) -> Tensor:
        """Keys of the scores that can still enter a list, [tests, most of any test], filled up with the lowest key.

        Few can, and finding them costs a fifth of selecting among all; where many can, as with many equal scores, the
        keys of all.
        """
        n_rows = signed.shape[1]
        if held is not None and held.shape[1] == self.k:
            entry = _unpack(held.amin(1, keepdim=True))[1]
        elif n_rows > 4 * self.k:
            entry = signed.topk(self.k, dim=1, sorted=False).values.amin(1, keepdim=True)
        else:
            return _pack(signed, rows)
        hopeful = signed >= entry  # an equal score enters where its row is lower
        counts = hopeful.sum(1)
        widest = int(counts.max()) if len(counts) else 0
        if widest > n_rows // 4:
            return _pack(signed, rows)
        tests, columns = hopeful.nonzero(as_tuple=True)  # ordered by test
        places = torch.arange(len(tests), device=tests.device) - (counts.cumsum(0) - counts)[tests]
        keys = torch.full((len(signed), widest), _LOWEST, device=signed.device)
        keys[tests, places] = _pack(signed[tests, columns], rows[columns] if rows.dim() == 1 else rows[tests, columns])
        return keys


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
