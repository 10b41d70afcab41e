"""Documents and queries: rows of a corpus as texts with the stretches of them that count, told with file and row.

A row is one of

- `text`: all of it counts;
- `prompt` and `completion`: the completion counts, both are read as they are written, without a space between them;
- `messages`, a list of {role, content}: written with the tokenizer's own chat template, the assistant's turns count.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import listed, quoted
from twinlens.data.file_readers import Row
from twinlens.data.labels import is_empty

ASSISTANT = "assistant"
FORMS = "text, prompt and completion, or messages"
TEXTS_OF_QUERIES = ("prompt", "completion", "foil")
OF_QUERIES = (*TEXTS_OF_QUERIES, "type", "group")
"""Columns that a query is read from."""


@dataclass(frozen=True)
class Document:
    """A text that a model is trained on.

    Attributes:
        where: file and row, for messages.
        prompt: what stands before and does not count; empty where all counts.
        completion: what counts; of a chat all of its turns, one in a line, to be shown.
        messages: turns of a chat; None: prompt and completion are the text as it stands.
    """

    where: str
    prompt: str
    completion: str
    messages: tuple[Mapping[str, str], ...] | None = None


@dataclass(frozen=True)
class Query:
    """A prompt with what follows it.

    Attributes:
        where: file and row, for messages.
        prompt: what is given.
        completion: what is explained; empty: the model goes on by itself.
        foil: what it may be set apart from; empty: nothing.
        type: word that groups it; empty: none.
    """

    where: str
    prompt: str
    completion: str = ""
    foil: str = ""
    type: str = ""


def form_of(row: Row) -> tuple[str, ...]:
    """The columns that a document is read from, of several forms in one row the first of messages, prompt and
    completion, text; none where it has no form."""
    if row.get("messages") is not None:
        return ("messages",)
    if row.get("completion") is not None:
        return ("prompt", "completion")
    return ("text",) if "text" in row else ()


def unread_columns(rows: Iterable[Row], read: Callable[[Row], Collection[str]]) -> list[str]:
    """Columns that say something in a row in which they are not read, in the order that they come up.

    Args:
        read: columns that count in a row.
    """
    found: dict[str, None] = {}
    for row in rows:
        wanted = read(row)
        found |= dict.fromkeys(name for name, cell in row.items() if name not in wanted and not is_empty(cell))
    return list(found)


def document_of(row: Row, where: str) -> Document:
    """The document of a row.

    Raises:
        UserError: none of the three forms, no text, or a chat without an assistant's turn.
    """
    form = form_of(row)
    if not form:
        raise UserError(
            f"{where} has none of {FORMS} (it has: {listed(list(row))}), expected one of these: rename the column."
        )
    if form == ("messages",):
        messages = _messages(row["messages"], where)
        shown = "\n".join(f"{turn['role']}: {turn['content']}" for turn in messages)
        return Document(where, "", shown, messages)
    prompt = _text(row, "prompt", where) if "prompt" in form else ""
    return Document(where, prompt, _text(row, form[-1], where))


def query_of(row: Row, where: str, generates: bool) -> Query:
    """The query of a row.

    Args:
        generates: whether the model goes on by itself where there is no completion.

    Raises:
        UserError: no prompt, no completion, or a foil that is the completion.
    """
    if "prompt" not in row:
        raise UserError(
            f"{where} has no prompt (it has: {listed(list(row))}), expected the columns prompt and completion, foil if "
            "you like: rename the column."
        )
    kind = _text(row, "group" if row.get("group") is not None else "type", where)
    prompt, completion, foil = (_text(row, name, where) for name in TEXTS_OF_QUERIES)
    query = Query(where, prompt, completion, foil, kind)
    if not query.completion.strip() and not generates:
        raise UserError(
            f"{where} has an empty completion, expected the text whose cause is looked for: fill it in, or set "
            "data.generate=20 to let the model go on by itself."
        )
    if query.foil and query.foil == query.completion:
        raise UserError(
            f"{where} has the same text {quoted(query.foil)} as completion and foil, expected two that differ, as "
            "nothing sets a completion apart from itself: change the foil or leave it out."
        )
    return query


@dataclass(frozen=True)
class ChatTemplate:
    """The tokenizer's own template, as it writes chats.

    Attributes:
        tokenizer: of the model.
    """

    tokenizer: Any

    def written(self, document: Document) -> tuple[str, list[tuple[int, int]]]:
        """A chat as the model reads it, and where the assistant's turns begin and end in it.

        Raises:
            UserError: no template, one that refuses the chat, or one that writes a turn differently once more follow.
        """
        assert document.messages is not None
        messages, spans = list(document.messages), []
        whole = self._apply(document, messages)
        for number, turn in enumerate(messages):
            if turn["role"] != ASSISTANT:
                continue
            before = self._apply(document, messages[:number], begun=True) if number else ""
            if not whole.startswith(before):
                before = self._apply(document, messages[:number]) if number else ""
            after = self._apply(document, messages[: number + 1])
            if not (after.startswith(before) and whole.startswith(after)):
                raise UserError(
                    f"{document.where}: the chat template writes turn {number} differently once others follow, so "
                    "that its tokens cannot be told apart; expected a template that only adds: write the row as "
                    "prompt and completion."
                )
            spans.append((len(before), len(after)))
        return whole, spans

    def _apply(self, document: Document, messages: Sequence[Mapping[str, str]], begun: bool = False) -> str:
        if not getattr(self.tokenizer, "chat_template", None):
            raise UserError(
                f"{document.where} has messages, but the model's tokenizer has no chat template, expected one "
                "(chat_template.jinja or tokenizer_config.json): set model.tokenizer_path, or write the row as prompt "
                "and completion."
            )
        try:
            turns = [dict(turn) for turn in messages]
            return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=begun))
        except Exception as error:  # the template is a program of its own, and says so in errors of its own
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
            raise UserError(
                f"{document.where}: the tokenizer's chat template refuses the messages ({reason}), expected turns as "
                "it takes them: mend the row."
            ) from None


def _messages(value: Any, where: str) -> tuple[Mapping[str, str], ...]:
    turns: list[Any] = value if isinstance(value, list) else [None]
    for number, turn in enumerate(turns):
        said = turn if isinstance(turn, Mapping) else {}
        if not all(isinstance(said.get(name), str) for name in ("role", "content")):
            raise UserError(
                f"{where} has {quoted(turn)} as turn {number} of messages, expected {{role, content}} with texts: "
                "mend the row."
            )
    if not any(turn["role"] == ASSISTANT and turn["content"].strip() for turn in turns):
        raise UserError(
            f"{where} has messages without a turn of the assistant, of which alone tokens count; expected at least "
            "one with the role assistant and a text: leave the row out."
        )
    return tuple({"role": turn["role"], "content": turn["content"]} for turn in turns)


def _text(row: Row, column: str, where: str) -> str:
    value = row.get(column)
    if value is None:
        return ""
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        return str(value)
    raise UserError(
        f"{where} has a {type(value).__name__} in the column {column}, expected text: flatten it or rename the column."
    )
