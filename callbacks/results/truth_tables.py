"""Tables of ground truth: every method by every truth of instances and of neurons, and certificates of both."""

from __future__ import annotations

from collections.abc import Sequence

from twinlens.attribution.evaluation.subsets import SAME_LABELS
from twinlens.callbacks.results.columns import Row, with_setting
from twinlens.callbacks.results.formatting import format_number
from twinlens.callbacks.results.table import Label, Table, cell_text, grid

OF_INSTANCES = {
    "lds": "LDS",
    "loo_pearson": "leave-one-out (Pearson)",
    "loo_spearman": "leave-one-out (Spearman)",
    "removal": "removal",
    "cluster_removal": "removal of a cluster",
    "tail_patch": "tail patch",
    "mislabel_auc": "wrong labels (AUROC)",
    "shortcut_auc": "shortcut (AUROC)",
    "randomised_spearman": "shuffled weights (Spearman)",
    "mrr": "twins (MRR)",
    "evidence_mrr": "own documents (MRR)",
    "evidence_first": "own document first",
    "evidence_recall": "own documents (recall)",
    "evidence_several": "several own documents",
}
"""Metrics in the order of the table's columns, with their names there."""
WITH_LENGTH = ("removal", "tail_patch", "evidence_recall", "evidence_several")
"""Metrics of the first rows of a list, whose number stands in the column's name."""
OF_NEURONS = {"neuron_pearson": "Pearson", "neuron_spearman": "Spearman", "neuron_recall": "recall"}
OF_CERTIFICATES = {
    "certificate_coverage": "realised changes within their intervals (%)",
    "certificate_width": "width of an interval (median)",
    "certificate_range": "realised changes, 5 to 95 %",
    "certificate_pearson": "predicted and realised (Pearson)",
    "certificate_change": "realised change (mean)",
}
PLACES = ("method", "group", "k", "reference_group", "model", "data")
"""Cells of a row that say which certificate it is of."""
COST = {"seconds": "time (s)", "processor_seconds": "processor time (s)", "memory_mib": "memory (MiB)"}
"""What each method took, behind what it is worth."""


def truth_tables(rows: Sequence[Row]) -> list[Table]:
    """Those that the rows allow: `ground_truth`, `neuron_truth` and `certificate`."""
    of_neurons = [row for row in rows if row["metric"] in OF_NEURONS and not row.get("group")]
    of_instances = [row for row in rows if row["metric"] in OF_INSTANCES]
    if all(row["metric"] == "mrr" for row in of_instances):  # planted twins alone have a place of their own
        of_instances = []
    of_neurons, of_instances = (
        [*found, *(row for row in rows if row["metric"] in COST and row.get("group") == kind)] if found else []
        for found, kind in ((of_neurons, "neuron"), (of_instances, "instance"))
    )
    found = [
        grid(
            "ground_truth",
            "Scores of training instances against what was measured: models trained on random halves (LDS), the head "
            "refitted without a row, fall of the target in nats when the first k rows are removed, its rise after one "
            "more step on them (tail patch), planted rows, documents that tell what a query asks",
            ("method", "model", "data"),
            sorted(of_instances, key=lambda row: [*OF_INSTANCES, *COST].index(str(row["metric"]))),
            _label,
            _instance_column,
            order=of_instances,
        ),
        grid(
            "neuron_truth",
            "Scores of all neurons against switching each of them off alone",
            ("method", "model", "data"),
            sorted(of_neurons, key=lambda row: [*OF_NEURONS, *COST].index(str(row["metric"]))),
            _label,
            _neuron_column,
            order=of_neurons,
        ),
        grid(
            "certificate",
            "Change of the target, in nats, without a prediction's first instances and neurons: predicted from the "
            "scores, with intervals that other examples calibrate, and measured",
            ("methods", "without", "rows", "measured by", "model", "data"),
            [row for row in rows if row["metric"] in OF_CERTIFICATES],
            lambda row: tuple(
                cell_text(row, key) for key in ("method", "group", "k", "reference_group", "model", "data")
            ),
            lambda row: OF_CERTIFICATES[str(row["metric"])],
        ),
    ]
    return [table for table in found if table is not None]


def _label(row: Row) -> Label:
    said = [part for part in cell_text(row, "setting").split(";") if not part.startswith("top_k=")]  # no score's
    name = with_setting(cell_text(row, "method"), {**row, "setting": ";".join(said)})
    like = cell_text(row, "reference_group")
    shared = "labels of" if SAME_LABELS in cell_text(row, "variant") else "as many rows as"
    return (f"{name}, {shared} {like}" if like else name, cell_text(row, "model"), cell_text(row, "data"))


def _neuron_column(row: Row) -> str:
    name = {**OF_NEURONS, **COST}[str(row["metric"])]
    return " @".join(filter(None, (name, format_number(row.get("k")))))


def _instance_column(row: Row) -> str:
    if row["metric"] in COST:
        return COST[str(row["metric"])]
    name, group = OF_INSTANCES[str(row["metric"])], cell_text(row, "group").replace("_", " ")
    size = f" @{format_number(row.get('k'))}" if row["metric"] in WITH_LENGTH else ""
    return f"{name}{size}" + (f", {group}" if group else "")
