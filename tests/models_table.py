"""docs/models.md, made of what every type of decoder is found to be: `python -m tests.models_table [TYPE …]`."""

from __future__ import annotations

import logging
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import transformers

from tests.decoders import TYPES, tiny_decoder
from tests.encoders import ENCODERS
from tests.served_decoders import CELLS, Subject, saved, subject_of
from tests.served_encoders import CELLS as ENCODER_CELLS
from tests.served_encoders import rows_of_encoders
from twinlens.attribution.errors import UserError

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
COLUMNS = ("type", *CELLS, "saved and loaded")
HEADER = f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}"
REASONS = {
    "cannot be read: its": "no: experts",
    "drops tokens": "no: drops tokens",
    "whose block is no sum": "no: a block is no sum",
    "no chain of blocks": "no: not one stream",
    "of several widths": "no: widths differ",
    "attention weights": "gradients alone",
    "values that are outputs": "gradients alone",
    "runs more than once": "no: a layer runs twice",
    "changed in another way": "no: another readout",
    "no `score` head": "no: another head",
    "has no place for": "no: other weights",
    "lacks": "no: other weights",
    "cannot be loaded": "no: no decoder by itself",
}
"""Part of a refusal → what the table says."""
INTRODUCTION = """# Which models are served

Any causal decoder of transformers can be tried. What it is made of is found in one forward over a few tokens, and
checked by identities before it is used: a block is its input plus two parts, activations times values are what the MLP
writes, attention weights times values are what its output projection reads, the readout's scores are the model's own
logits, variant rows are full forwards. What fails is refused by name, for the methods that need it alone.

This table is written by the program that tries all of it on tiny random models (`python -m tests.models_table`), with
transformers {version}. Every cell that is served was compared with plain loops over the model's own forward: edited
answer tokens, integrated gradients, log-probability increases and dot products of gradients, with padding on either
side, one text and three at a time.

- *rows*: how edited answer tokens run. `replayed`: many at the price of one forward; `full forwards`: each as a whole
  forward, which is exact and slow.
- *FFN*: neurons of the MLP, by `ig` and by `logprob_increase`. `experts`: units of the routed experts of a mixture;
  `experts, shared ones too`: and of the expert that every token goes through. Both were compared with a loop that takes
  one token and one expert at a time ([methods](methods.md#mixtures-of-experts)).
- *attention*: attention neurons by the same; `gradients alone`: by `ig` (site=attn), not by increases, which need
  weights times values to be what the output projection reads.
- *gradients*: instance methods over the gradients of all linear layers (`params=all`), the matrices of every expert
  among them; `yes, but for experts`: of a form that is not transformers' experts interface, see the run's warning.
- *saved and loaded*: a classifier with a linear head, saved and loaded again, by `transformers.AutoModel` its decoder.
  `own head`: transformers has no classifier of the type, so that twinlens makes one, and loads it.

Instance methods over the head (`gradsim`, `influence`) need no more than a classifier that can be loaded.

Before a fit, and for `plan=true`, no weights are there to look at. Then the same is found in a small twin: the model's
configuration with all widths divided by one number, a block of each kind, random weights. What it refuses is refused
before the fit; what is served is found and checked again in the model itself. A run with neuron methods keeps what it
found in the store (`anatomy/`, by configuration); the next run with such a model reads it, and looks anew where the
identities do not hold for its weights.
"""

ENCODER_HEADING = "## Encoders"
OF_ENCODERS = f"""{ENCODER_HEADING}

Classifiers that read a text in both directions, and its first token, which their tokenizer puts there (`model=local
model.path=DIR`). Their own head is the readout: whatever lies between that token's last state and the logits, found by
equal tensors. Every cell was compared with plain loops over transformers' own classifier, as above.

- *own probabilities*: with `fit=false` those of transformers, to 1e-5.
- *FFN*, *attention*: neurons at the classification token, by `ig`, `ablation` and faithfulness. Every edit is a full
  forward, since all tokens see it. Methods that read a residual stream (`logprob_increase`, `grad_x_act` …) are
  refused.
- *gradients*: instance methods over all linear layers (`params=all`); over the head they need no more than the first
  column. A norm within the head (ModernBERT) counts as a part of what it reads.
"""


def rows_of(types: Sequence[str]) -> dict[str, list[str]]:
    """What is served of each type that can be built small, in the order of `CELLS` and then as it is saved."""
    found = {}
    for name in types:
        lm = tiny_decoder(name)
        if lm is not None:
            found[name] = [*_cells(name), _tried(lambda name=name: saved(name))]
    return found


def _cells(name: str) -> list[str]:
    try:
        subject = subject_of(name)
    except UserError as refused:
        reason = _reason(refused)
        return [reason] * 3 + [_tried(lambda: CELLS["gradients"](Subject.plain(name)))]
    except Exception as unexpected:
        return [f"no: {type(unexpected).__name__} in transformers"] * len(CELLS)
    return [_tried(lambda cell=cell: cell(subject)) for cell in CELLS.values()]


def _tried(cell: Callable[[], str]) -> str:
    """What a cell says, or why it is refused; a wrong number says so."""
    try:
        return cell()
    except UserError as refused:
        return _reason(refused)
    except AssertionError as wrong:
        return f"WRONG: {str(wrong).splitlines()[0] if str(wrong) else ''}"
    except OverflowError:
        return "no: the tiny model's numbers overflow"
    except Exception as unexpected:
        return f"no: {type(unexpected).__name__} in transformers"


def _reason(refused: UserError) -> str:
    return next((said for part, said in REASONS.items() if part in str(refused)), f"no: {refused}")


def page_of(rows: Mapping[str, Sequence[str]], left_out: Sequence[str], encoders: Mapping[str, Sequence[str]]) -> str:
    """The whole page."""
    counts = {name: Counter(cells[place] for cells in rows.values()) for place, name in enumerate(COLUMNS[1:])}
    served = sum(is_served(cells[1]) for cells in rows.values())
    mixed = sum(cells[1].startswith("experts") for cells in rows.values())
    by_rows = sum(cells[0] == "replayed" and is_served(cells[1]) for cells in rows.values())
    whole = sum(is_served(cells[3]) for cells in rows.values())
    attention, loaded = counts["attention"], [cells[-1] for cells in rows.values() if not cells[-1].startswith("no")]
    summary = (
        f"Of {len(rows)} types, {served} are served for FFN neurons ({mixed} of them mixtures of experts; "
        f"{by_rows} by replayed rows, the rest by full forwards), "
        f"{attention['yes'] + attention['gradients alone']} for attention neurons "
        f"({attention['gradients alone']} of them by gradients alone), {whole} for gradients of "
        f"all linear layers, and {len(loaded)} as "
        "classifiers that are saved and loaded."
    )
    lines = "\n".join(f"| {' | '.join([name, *cells])} |" for name, cells in sorted(rows.items()))
    rest = (
        "Not tried, because the type cannot be built small from its settings here, or is no causal decoder by itself: "
        f"{', '.join(left_out)}."
    )
    columns = ("type", *ENCODER_CELLS)
    header = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}"
    of_encoders = "\n".join(f"| {' | '.join([name, *cells])} |" for name, cells in sorted(encoders.items()))
    parts = [INTRODUCTION.format(version=transformers.__version__), summary, "", f"{HEADER}\n{lines}", "", rest, ""]
    return "\n".join([*parts, OF_ENCODERS, f"{header}\n{of_encoders}", ""])


def is_served(cell: str) -> bool:
    """Whether a cell says that something is served."""
    return cell.startswith(("yes", "experts"))


def rows_on(page: Path) -> dict[str, list[str]]:
    """The rows of decoders as they stand on the page."""
    return _table(page.read_text(encoding="utf-8").partition(ENCODER_HEADING)[0] if page.is_file() else "")


def encoder_rows_on(page: Path) -> dict[str, list[str]]:
    """The rows of encoders as they stand on the page."""
    return _table(page.read_text(encoding="utf-8").partition(ENCODER_HEADING)[2] if page.is_file() else "")


def _table(text: str) -> dict[str, list[str]]:
    lines = text.splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines if line.startswith("| ")]
    return {row[0].strip(): row[1:] for row in cells if row[0] != "type"}


def quiet() -> None:
    """Keep transformers from talking about tiny models."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def main(types: Sequence[str]) -> int:
    """Try every type, or the named ones alone, whose rows take the place of those on the page, and write it."""
    quiet()
    torch.set_num_threads(1)
    if types:
        rows, encoders = {**rows_on(PAGE), **rows_of(types)}, encoder_rows_on(PAGE)
    else:
        rows, encoders = rows_of(TYPES), rows_of_encoders(list(ENCODERS), _tried)
    left_out = [name for name in TYPES if name not in rows and name not in encoders]
    PAGE.write_text(page_of(rows, left_out, encoders), encoding="utf-8")
    rows |= encoders
    wrong = {name: cells for name, cells in rows.items() if any("WRONG" in cell for cell in cells)}
    for name, cells in wrong.items():
        print(name, *cells, sep=" | ")
    return len(wrong)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
