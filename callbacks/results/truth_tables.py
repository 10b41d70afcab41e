"""Tables of ground truth: every method by every truth of instances, and of neurons, with intervals."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.callbacks.results.columns import Row, with_setting
from twinlens.callbacks.results.formatting import format_number
from twinlens.callbacks.results.table import Label, Table, cell_text, grid

OF_INSTANCES = {
    "lds": "LDS",
    "loo_pearson": "leave-one-out (Pearson)",
    "loo_spearman": "leave-one-out (Spearman)",
    "removal": "removal",
    "mislabel_auc": "wrong labels (AUROC)",
    "shortcut_auc": "shortcut (AUROC)",
    "randomised_spearman": "shuffled weights (Spearman)",
    "mrr": "twins (MRR)",
}
"""Metrics in the order of the table's columns, with their names there."""
OF_NEURONS = {"neuron_pearson": "Pearson", "neuron_spearman": "Spearman", "neuron_recall": "recall"}


def truth_tables(rows: Sequence[Row]) -> list[Table]:
    """Those that the rows allow: `ground_truth` and `neuron_truth`."""
    of_neurons = [row for row in rows if row["metric"] in OF_NEURONS and not row.get("group")]
    of_instances = [row for row in rows if row["metric"] in OF_INSTANCES]
    if all(row["metric"] == "mrr" for row in of_instances):  # planted twins alone have a place of their own
        of_instances = []
    found = [
        grid(
            "ground_truth",
            "Scores of training instances against what was measured: models trained on random halves (LDS), the head "
            "refitted without a row, fall of the target in nats when the first k rows are removed, planted rows",
            ("method", "model", "data"),
            sorted(of_instances, key=lambda row: list(OF_INSTANCES).index(str(row["metric"]))),
            _label,
            _instance_column,
            order=of_instances,
        ),
        grid(
            "neuron_truth",
            "Scores of all neurons against switching each of them off alone",
            ("method", "model", "data"),
            sorted(of_neurons, key=lambda row: list(OF_NEURONS).index(str(row["metric"]))),
            _label,
            lambda row: " @".join(filter(None, (OF_NEURONS[str(row["metric"])], format_number(row.get("k"))))),
            order=of_neurons,
        ),
    ]
    return [table for table in found if table is not None]


def _label(row: Row) -> Label:
    said = [part for part in cell_text(row, "setting").split(";") if not part.startswith("top_k=")]  # no score's
    name = with_setting(cell_text(row, "method"), {**row, "setting": ";".join(said)})
    like = cell_text(row, "reference_group")
    return (f"{name}, labels of {like}" if like else name, cell_text(row, "model"), cell_text(row, "data"))


def _instance_column(row: Row) -> str:
    name, group = OF_INSTANCES[str(row["metric"])], cell_text(row, "group").replace("_", " ")
    size = f" @{format_number(row.get('k'))}" if row["metric"] == "removal" else ""
    return f"{name}{size}" + (f", {group}" if group else "")
