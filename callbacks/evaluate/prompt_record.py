"""<run>/<name>_edits.csv: what a prompt's listed neurons, each set to a multiple of itself, make of the answer."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path

from twinlens.attribution.evaluation.neuron_level.prompt_edits import Recorded
from twinlens.callbacks.store.files import write_text

RECORD = "_edits.csv"
"""End of the file's name, behind that of the evaluation."""
COLUMNS = ("index", "token", "kind", "neuron", "factor", "target_id", "target", "log_prob")
"""Columns before those of the best other outputs: `other1_id`, `other1`, `other1_log_prob`, `other2_id` … In nats; the
model as it is has factor 1 and no neuron. Outputs are JSON texts, so that spaces around them are seen."""


def write_record(path: Path, lines: Iterable[Recorded], token: Callable[[int], str]) -> None:
    """Write the record; no file where nothing is recorded.

    Args:
        token: text of an output.
    """
    found = list(lines)
    if not found:
        return
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    others = range(1, 1 + len(found[0].others))
    writer.writerow([*COLUMNS, *(f"other{i}{part}" for i in others for part in ("_id", "", "_log_prob"))])
    for line in found:
        said = [line.index, line.token, line.kind, line.neuron, f"{line.factor:g}", line.target,
                json.dumps(token(line.target)), f"{line.log_prob:.6g}"]  # fmt: skip
        for output, log_prob in line.others:
            said += [output, json.dumps(token(output)), f"{log_prob:.6g}"]
        writer.writerow(said)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, text.getvalue())
