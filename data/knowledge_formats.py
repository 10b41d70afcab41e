"""Readers of files with knowledge prompts: rows as {prompt, answer, type}, each format told by the rows' own keys.

- `{prompt, answer, type}`: this project's own; `answer` may be absent or null, `answer_id` says its token itself, and
  `answers` lists several that are accepted.
  Where any answer of a file begins with a space, all go on from the prompts as they are written, else behind a space.
- `{query, answer, type, source}`: questions with typed answers (TriviaQA); the prompt asks and ends with "Answer:".
- `{context, continuation}`: BIG-bench qa_wikidata; what the prompt asks for is the type.
- `facts_P36.jsonl` beside `patterns_P36.jsonl`: ParaRel (Elazar et al. 2021), the first pattern that ends with the
  answer; P36 (a Wikidata property) is the type unless it is one of the six.
- `{name, properties, prompt_templates, samples}`, one JSON object: a relation of Hernandez et al. (2024), the first
  template; what the relation leads to (`range_name`) is the type.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.data.data_report import Notes, listed, quoted
from twinlens.data.file_readers import (
    Need,
    Row,
    check_row,
    data_file,
    format_of,
    is_folder,
    named_file,
    read_files,
    read_rows,
)
from twinlens.data.json_files import json_value
from twinlens.data.split_files import say_unused

PARAREL_FACTS = re.compile(r"facts_(P[0-9]+)\.jsonl(\.gz)?")
PARAREL_TYPES = {
    "P17": "country", "P27": "country", "P495": "country", "P37": "language", "P103": "language", "P364": "language",
    "P407": "language", "P1412": "language", "P36": "capital",
}  # fmt: skip
ASKED_FOR = {"language": "language", "country": "country", "capital": "capital", "color": "colour", "month": "month"}
"""A word of what a prompt or relation asks for → the type."""


def read_prompts(path: Path, notes: Notes | None = None, needed: int | None = None) -> list[Row]:
    """Rows of a file, or of all files of a folder in the order of their names.

    Args:
        path: file or folder.
        notes: is told what was done.
        needed: how many rows are needed, the first ones; None: all.

    Returns:
        {prompt, answer, type}; `answer` is empty where there is none. Beside these, `place` (file and row in words),
        `as_written` where no space is put between prompt and answer, `answer_id` where a row names its token, and
        `answers` where it accepts several, of which `answer` is the first.

    Raises:
        UserError: no such file, no file of a known format, or a row of another form.
    """
    notes = Notes() if notes is None else notes
    if not is_folder(path):
        return _read_file(path, notes, needed)
    files = [file for file in sorted(path.iterdir()) if _may_hold_prompts(file)]
    if not files:
        raise UserError(
            f"the folder {path} has no .jsonl or .json file; expected prompts in one of the formats that docs/data.md "
            "names: check data.path."
        )
    rows: list[Row] = []
    for file in files:
        left = None if needed is None else needed - len(rows)
        if left is None or left > 0:
            rows += _read_file(file, notes, left)
    patterns = [file for file in path.iterdir() if file.name.startswith("patterns_")]
    say_unused(path, [*files, *patterns], notes)
    return rows


def _may_hold_prompts(file: Path) -> bool:
    return format_of(file) in (".jsonl", ".json") and file.is_file() and not file.name.startswith("patterns_")


def _read_file(file: Path, notes: Notes, needed: int | None) -> list[Row]:
    pararel = PARAREL_FACTS.fullmatch(file.name)
    if pararel:
        return list(_pararel(file, pararel[1], notes, needed))
    if format_of(file) == ".json" and (relation := _relation(file)) is not None:
        return relation[:needed]
    unkept: set[bool] = set()  # one answer that begins with a space decides for all of its file
    need = None if needed is None else Need(needed, further=lambda row: unkept.add(_writes_space(row)))
    rows = read_files([file], notes=notes, need=need).rows
    reader = next((reader for keys, reader in READERS.items() if rows and set(keys) <= set(rows[0])), None)
    if reader is None:
        raise UserError(
            f"{file} has rows with the keys {listed(list(rows[0])) if rows else 'of no row'}; expected prompt and type "
            "(with answer), or another format that docs/data.md names: rename the keys."
        )
    read = [_checked(file, number, reader, row) for number, row in enumerate(rows)]
    if reader is not _plain or not any((*map(_writes_space, read), *unkept)):
        return read
    return _with_written_spaces(file, rows, read, notes)


def _writes_space(row: Row) -> bool:
    several = row.get("answers")
    answers = [row.get("answer"), *(several if isinstance(several, list) else [])]
    return any(isinstance(answer, str) and answer[:1].isspace() and bool(answer.strip()) for answer in answers)


def _with_written_spaces(file: Path, rows: Sequence[Row], read: list[Row], notes: Notes) -> list[Row]:
    """Each answer with the space that is written between it and its prompt."""
    glued = 0
    for row, found in zip(rows, read, strict=True):
        before = row["prompt"][len(row["prompt"].rstrip()) :]
        found["answer"] = before + found["answer"] if found["answer"] else ""
        if "answers" in found:
            found["answers"] = [before + answer for answer in found["answers"]]
        found["as_written"] = True
        glued += bool(found["answer"]) and not found["answer"][0].isspace()
    notes.say(
        f"answers: {file.name} writes the spaces before its answers, which are taken as written; {glued} of "
        f"{len(read)} go on without one"
    )
    return read


def _checked(file: Path, number: int, reader: Callable[[Row], Row], row: Row) -> Row:
    if reader is _plain and isinstance(row, dict):
        _check_answers(file, number, row)
    try:
        read = reader(row)
    except TypeError:
        raise UserError(
            f"{file} row {number} has {quoted(row)}, expected an object with texts: mend that row."
        ) from None
    except KeyError as error:
        raise UserError(f"{file} row {number} has no {error.args[0]}, unlike the first row: mend that row.") from None
    wrong = next((name for name in ("prompt", "answer", "type") if not isinstance(read[name], str)), None)
    if wrong is not None or not read["prompt"].strip():
        raise UserError(
            f"{file} row {number} has {quoted(row)}, expected text for {wrong or 'the prompt'}: mend that row."
        )
    # a space at the end would belong to the answer's first token
    return {**read, "prompt": read["prompt"].rstrip(), "place": f"{file} row {number}"}


def _check_answers(file: Path, number: int, row: Row) -> None:
    """Refuse a list of accepted answers that is none, or one beside another form of the answer.

    Raises:
        UserError: naming file and row.
    """
    answers = row.get("answers")
    if answers is None:
        return
    beside = next((name for name in ("answer", "answer_id") if row.get(name) is not None), None)
    if beside is not None:
        raise UserError(
            f"{file} row {number} has answers beside {beside}={row[beside]!r:.40}, expected one form of the answer: "
            f"leave out {beside}, or put its text into the list."
        )
    if not isinstance(answers, list) or not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        raise UserError(
            f"{file} row {number} has answers={answers!r:.60}, expected a list of at least one text, each with more "
            "than spaces: mend that row."
        )


# -- one function per format -------------------------------------------------------------------------------------


def _plain(row: Row) -> Row:
    answer = row.get("answer")
    read = {"prompt": row["prompt"], "answer": "" if answer is None else answer, "type": row["type"]}
    if row.get("answers") is not None:
        several = list(dict.fromkeys(row["answers"]))
        return {**read, "answer": several[0], "answers": several}
    return read if row.get("answer_id") is None else {**read, "answer_id": row["answer_id"]}


def _question(row: Row) -> Row:
    return {"prompt": "Question: " + row["query"] + " Answer:", "answer": row["answer"], "type": row["type"]}


def _continuation(row: Row) -> Row:
    return {"prompt": row["context"], "answer": row["continuation"], "type": wikidata_type(row["context"])}


def wikidata_type(context: str) -> str:
    """The type of a qa_wikidata prompt: what it asks for, by one of the paper's names where it has one.

    "The country of citizenship of X is" asks for a country. Of forms without such words ("X is capital of") the type is
    `other`.
    """
    asked = re.match(r"The ([a-z ]+?)(?: of| spoken by| played by)? [^a-z]", context)
    return "other" if asked is None else named_type(asked[1])


def named_type(words: str) -> str:
    """One of the six types where the words name it, else the words."""
    return next((name for word, name in ASKED_FOR.items() if word in words.split()), words)


def _pararel(file: Path, relation: str, notes: Notes, needed: int | None) -> Iterator[Row]:
    patterns = read_rows(named_file(file.with_name(f"patterns_{relation}.jsonl")), notes=notes)
    ending = [str(row.get("pattern")) for row in patterns]
    pattern = next((text for text in ending if re.search(r"\[Y\] ?\.?$", text) and "[X]" in text), None)
    if pattern is None:
        raise UserError(
            f"{file.with_name(f'patterns_{relation}.jsonl')} has no pattern that ends with [Y]; expected one, since "
            "the answer comes last: add one, or take the file away."
        )
    before = re.sub(r" ?\[Y\] ?\.?$", "", pattern)
    need = None if needed is None else Need(needed)
    for number, row in enumerate(read_files([file], notes=notes, need=need).rows):
        yield _checked(
            file,
            number,
            lambda row: {
                "prompt": before.replace("[X]", row["sub_label"]),
                "answer": row["obj_label"],
                "type": PARAREL_TYPES.get(relation, relation),
            },
            row,
        )


def _relation(file: Path) -> list[Row] | None:
    """The prompts of a relation; None where the file holds rows instead."""
    relation = json_value(data_file(file))
    if relation is None or (isinstance(relation, list) and relation):
        return None
    check_row(str(file), {"": relation})
    try:
        template, samples = relation["prompt_templates"][0], list(relation["samples"])
        # the capital's range is a city, as that of the largest city: the relation's name tells them apart
        kind = "capital" if "capital" in relation["name"] else named_type(relation["properties"]["range_name"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{file} is no relation ({type(error).__name__}: {error}); expected an object with name, properties, "
            "prompt_templates and samples: mend it or take it out of data.path."
        ) from None
    return [
        _checked(
            file,
            number,
            lambda row: {"prompt": str(template).replace("{}", row["subject"]), "answer": row["object"], "type": kind},
            row,
        )
        for number, row in enumerate(samples)
    ]


READERS: Mapping[tuple[str, ...], Callable[[Row], Row]] = {
    ("prompt", "type"): _plain,
    ("query", "answer", "type"): _question,
    ("context", "continuation"): _continuation,
}
"""Keys of the first row → what makes a prompt of each row."""
