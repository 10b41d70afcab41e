"""The form in which a model reads a text: special tokens around it, its template, its length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from twinlens.attribution.errors import UserError
from twinlens.data.applied_tokenizer import tokenised


class Asked(NamedTuple):
    """What the settings say of the form of a text; None: nothing."""

    template: str | None
    max_length: int | None
    bos: bool | None


@dataclass(frozen=True)
class SpecialTokens:
    """Ids that stand before and behind a text."""

    start: tuple[int, ...] = ()
    end: tuple[int, ...] = ()

    def written_in(self, ids: Sequence[int]) -> bool:
        """Whether a text begins with what stands before texts, so that nothing need be put there."""
        return bool(self.start) and tuple(ids[: len(self.start)]) == self.start

    def begins(self, bos: int | None) -> bool:
        """Whether the beginning-of-sequence token comes first."""
        return bos is not None and self.start[:1] == (bos,)


@dataclass(frozen=True)
class OwnForm:
    """How a classifier that is used as it is reads a text, for what the user leaves open.

    Attributes:
        template: it was trained with; None: none is known, it reads plain text.
        max_length: it was trained with, in tokens; None: none is known, it reads whole texts.
        stated: the longest text that it speaks of, in tokens; 0: it says nothing.
        padding: id that its own forward takes for padding wherever a text ends with it; None: no id.
    """

    template: str | None
    max_length: int | None
    stated: int
    padding: int | None


@dataclass(frozen=True)
class InputForm:
    """What is done to every text.

    Attributes:
        special: ids around it.
        max_length: longest sequence in tokens.
        padding: id that is taken off its end, as the model does not read it there; None: none.
        counts: of sequences that something was done to; filled while they are made.
    """

    special: SpecialTokens
    max_length: int
    padding: int | None = None
    counts: Counter[str] = field(default_factory=Counter)


def count_odd_tokens(form: InputForm, tokenizer: Any, texts: Sequence[Sequence[int]]) -> None:
    """Count texts with words that the tokenizer has no token for, and texts in which special tokens are written out.

    Args:
        form: whose `counts` are filled.
        tokenizer: of the model.
        texts: ids of each text, without what is put around it.
    """
    ends = (None, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id)
    unknown = -1 if tokenizer.unk_token_id in ends else int(tokenizer.unk_token_id)  # no id is negative
    special = set(tokenizer.all_special_ids) - {unknown}
    for ids in texts:
        inside = list(ids[len(form.special.start) :] if form.special.written_in(ids) else ids)
        while inside and inside[-1] == form.padding:
            inside.pop()
        found = inside.count(unknown)
        form.counts["tokens"] += len(ids)
        form.counts["unknown_tokens"] += found
        form.counts["unknown"] += found > 0
        form.counts["special_inside"] += not special.isdisjoint(inside)


def bos_alone(tokenizer: Any, bos: bool) -> SpecialTokens:
    """The beginning-of-sequence token first, where the tokenizer has one."""
    return SpecialTokens((tokenizer.bos_token_id,) if bos and tokenizer.bos_token_id is not None else ())


def own_special_tokens(tokenizer: Any) -> SpecialTokens:
    """What the tokenizer itself puts around a text.

    Raises:
        UserError: it puts something into the text, or leaves the text out.
    """
    encoded = tokenised(tokenizer, "a", return_special_tokens_mask=True, return_attention_mask=False)
    ids, added = encoded["input_ids"], encoded["special_tokens_mask"]
    plain = tokenised(tokenizer, "a", add_special_tokens=False, return_attention_mask=False)["input_ids"]
    n_start = added.index(0) if 0 in added else len(ids)
    n_end = len(ids) - n_start - len(plain)
    if ids[n_start : n_start + len(plain)] != plain or not plain or n_end < 0:
        raise UserError(
            f"the tokenizer makes {ids} of the text 'a', which is {plain} without special tokens; expected special "
            "tokens before and behind a text alone: set model.tokenizer_path to the tokenizer that the model was "
            "trained with."
        )
    return SpecialTokens(tuple(ids[:n_start]), tuple(ids[n_start + len(plain) :]))


def special_tokens(tokenizer: Any, bos: bool | None, own: OwnForm | None) -> SpecialTokens:
    """What stands around a text: the beginning-of-sequence token, or of a checkpoint that is used as it is what its own
    tokenizer adds, of which `bos` says otherwise of that token alone.

    Raises:
        UserError: see `own_special_tokens`.
    """
    if own is None and getattr(tokenizer, "cls_token_id", None) is not None:
        return own_special_tokens(tokenizer)  # an encoder's text without them has no place to be read at
    if own is None:
        return bos_alone(tokenizer, bos is not False)
    special = own_special_tokens(tokenizer)
    if bos is None:
        return special
    rest = special.start[special.begins(tokenizer.bos_token_id) :]
    return replace(special, start=(*bos_alone(tokenizer, bos).start, *rest))


def own_length(own: OwnForm | None, positions: int | None, default: int) -> int:
    """The longest text where no setting says it: that of the checkpoint, or the data's `default`, within the model's
    positions."""
    length = default if own is None else own.max_length or max(own.stated, default)
    return length if positions is None else min(length, positions)


def told_form(form: InputForm, template: str, tokenizer: Any) -> str:
    """The form in words."""
    around = [_names(tokenizer, form.special.start), repr(template), _names(tokenizer, form.special.end)]
    return f"{' + '.join(part for part in around if part)}, at most {form.max_length} tokens"


def notes_of(
    form: InputForm, used: str, trained: str | None, own: OwnForm | None, tokenizer: Any, limited: bool
) -> list[str]:
    """One line for everything that was done to texts, with the number of these, and for what is not the own form.

    Args:
        form: whose texts were made.
        used: template of the texts.
        trained: what the checkpoint is known to read; None: nothing is known, as there are several columns.
        own: the form of the checkpoint that is used as it is; None: a model is trained.
        tokenizer: of the model.
        limited: whether the model decided how long a text may be.
    """
    n, notes = form.counts["texts"], []
    if own is not None:
        notes.append(f"form: {told_form(form, used, tokenizer)}")
        if used != trained:
            known = (
                "how it was trained to read several columns is not known" if trained is None else f"reads {trained!r}"
            )
            notes.append(f"form: {n} texts are shown as {used!r} (data.template), the checkpoint: {known}")
        special = own_special_tokens(tokenizer)
        if form.special != special:
            adds = " and ".join(filter(None, (_names(tokenizer, special.start), _names(tokenizer, special.end))))
            got = " and ".join(
                filter(None, (_names(tokenizer, form.special.start), _names(tokenizer, form.special.end)))
            )
            notes.append(
                f"form: {n} texts get {got or 'no special token'}, its own tokenizer adds {adds or 'none'} (data.bos)"
            )
    counts = {name: f"form: {count} of {n} texts" for name, count in form.counts.items() if count}
    if "cut" in counts and (limited or own is not None):
        notes.append(f"{counts['cut']} are cut to {form.max_length} tokens (data.max_length)")
    if "begins_itself" in counts:
        start = _names(tokenizer, form.special.start)
        notes.append(f"{counts['begins_itself']} begin with {start} themselves: no second one is put before them")
    if "at_end" in counts:
        end = _names(tokenizer, () if form.padding is None else (form.padding,))
        notes.append(f"{counts['at_end']} end with {end}, which the checkpoint takes for padding: read before it")
    if "special_inside" in counts:
        notes.append(f"{counts['special_inside']} hold special tokens written out: the model reads them as such")
    if "unknown" in counts:
        unknown = _names(tokenizer, (tokenizer.unk_token_id,))
        share = form.counts["unknown_tokens"] / form.counts["tokens"]
        notes.append(
            f"{counts['unknown']} hold words that the tokenizer has no token for: it reads {unknown}, {share:.2g} of "
            "all tokens"
        )
    return notes


def _names(tokenizer: Any, ids: tuple[int, ...]) -> str:
    return " ".join(tokenizer.convert_ids_to_tokens(list(ids)))
