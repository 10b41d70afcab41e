"""Readers of files with knowledge prompts: rows as {prompt, answer, type}, each format told by the rows' own keys.

- `{prompt, answer, type}`: this project's own; `answer` may be absent or null.
- `{query, answer, type, source}`: questions with typed answers (TriviaQA); the prompt asks and ends with "Answer:".
- `{context, continuation}`: BIG-bench qa_wikidata; what the prompt asks for is the type.
- `facts_P36.jsonl` beside `patterns_P36.jsonl`: ParaRel (Elazar et al. 2021), the first pattern that ends with the
  answer; P36 (a Wikidata property) is the type unless it is one of the six.
- `{name, properties, prompt_templates, samples}`, one JSON object: a relation of Hernandez et al. (2024), the first
  template; what the relation leads to (`range_name`) is the type.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from twinlens.attribution.errors import UserError
from twinlens.data.file_readers import Row, read_rows

PARAREL_FACTS = re.compile(r"facts_(P\d+)\.jsonl")
PARAREL_TYPES = {
    "P17": "country", "P27": "country", "P495": "country", "P37": "language", "P103": "language", "P364": "language",
    "P407": "language", "P1412": "language", "P36": "capital",
}  # fmt: skip
ASKED_FOR = {"language": "language", "country": "country", "capital": "capital", "color": "colour", "month": "month"}
"""A word of what a prompt or relation asks for → the type."""


def read_prompts(path: Path) -> list[Row]:
    """Rows of a file, or of all files of a folder in the order of their names.

    Returns:
        {prompt, answer, type}; `answer` is empty where there is none.

    Raises:
        UserError: no such file, no file of a known format, or a row of another form.
    """
    if not path.is_dir():
        return _read_file(path)
    files = [file for file in sorted(path.iterdir()) if _may_hold_prompts(file)]
    if not files:
        raise UserError(
            f"the folder {path} has no .jsonl or .json file; expected prompts in one of the formats that docs/data.md "
            "names: check data.path."
        )
    return [row for file in files for row in _read_file(file)]


def _may_hold_prompts(file: Path) -> bool:
    return file.suffix in (".jsonl", ".json") and not file.name.startswith("patterns_")


def _read_file(file: Path) -> list[Row]:
    pararel = PARAREL_FACTS.fullmatch(file.name)
    if pararel:
        return list(_pararel(file, pararel[1]))
    if file.suffix == ".json":
        return list(_relation(file))
    rows = read_rows(file)
    reader = next((reader for keys, reader in READERS.items() if rows and set(keys) <= set(rows[0])), None)
    if reader is None:
        raise UserError(
            f"{file} has rows with the keys {', '.join(rows[0]) if rows else 'of no row'}; expected prompt and type "
            "(with answer), or another format that docs/data.md names: rename the keys."
        )
    return [_checked(file, number, reader, row) for number, row in enumerate(rows)]


def _checked(file: Path, number: int, reader: Callable[[Row], Row], row: Row) -> Row:
    try:
        read = reader(row)
    except KeyError as error:
        raise UserError(f"{file} row {number} has no {error.args[0]}, unlike the first row: mend that row.") from None
    wrong = next((name for name, value in read.items() if not isinstance(value, str)), None)
    if wrong is not None or not read["prompt"].strip():
        raise UserError(f"{file} row {number} has {row!r}, expected text for {wrong or 'the prompt'}: mend that row.")
    return {**read, "prompt": read["prompt"].rstrip()}  # a space at the end would belong to the answer's first token


# -- one function per format -------------------------------------------------------------------------------------


def _plain(row: Row) -> Row:
    answer = row.get("answer")
    return {"prompt": row["prompt"], "answer": "" if answer is None else answer, "type": row["type"]}


def _question(row: Row) -> Row:
    return {"prompt": f"Question: {row['query']} Answer:", "answer": row["answer"], "type": row["type"]}


def _continuation(row: Row) -> Row:
    return {"prompt": row["context"], "answer": row["continuation"], "type": wikidata_type(str(row["context"]))}


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


def _pararel(file: Path, relation: str) -> Iterator[Row]:
    patterns = read_rows(file.with_name(f"patterns_{relation}.jsonl"))
    ending = [str(row.get("pattern")) for row in patterns]
    pattern = next((text for text in ending if re.search(r"\[Y\] ?\.?$", text) and "[X]" in text), None)
    if pattern is None:
        raise UserError(
            f"{file.with_name(f'patterns_{relation}.jsonl')} has no pattern that ends with [Y]; expected one, since "
            "the answer comes last: add one, or take the file away."
        )
    before = re.sub(r" ?\[Y\] ?\.?$", "", pattern)
    for number, row in enumerate(read_rows(file)):
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


def _relation(file: Path) -> Iterator[Row]:
    try:
        relation = json.loads(file.read_text(encoding="utf-8-sig"))
        template, samples = relation["prompt_templates"][0], relation["samples"]
        # the capital's range is a city, as that of the largest city: the relation's name tells them apart
        kind = "capital" if "capital" in relation["name"] else named_type(relation["properties"]["range_name"])
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise UserError(
            f"{file} is no relation ({type(error).__name__}: {error}); expected an object with name, properties, "
            "prompt_templates and samples: mend it or take it out of data.path."
        ) from None
    for number, row in enumerate(samples):
        yield _checked(
            file,
            number,
            lambda row: {
                "prompt": str(template).replace("{}", row["subject"]),
                "answer": row["object"],
                "type": kind,
            },
            row,
        )


READERS: Mapping[tuple[str, ...], Callable[[Row], Row]] = {
    ("prompt", "type"): _plain,
    ("query", "answer", "type"): _question,
    ("context", "continuation"): _continuation,
}
"""Keys of the first row → what makes a prompt of each row."""
