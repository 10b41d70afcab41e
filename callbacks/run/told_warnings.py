"""Saying a run's warnings: on stdout when a stage has ended, and in the run's folder for its report.

Of a sweep's jobs only the first that has a warning says it; when the sweep has ended, each is said with all its jobs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from twinlens.attribution.evaluation.result import Result
from twinlens.callbacks.passes.session import Session
from twinlens.callbacks.processes.ranks import is_first_process
from twinlens.callbacks.results.run_files import WARNINGS_FILE, RunFiles
from twinlens.callbacks.results.run_warning import Directions, Facts, Stage
from twinlens.callbacks.results.told_rows import new_sentences
from twinlens.callbacks.results.warnings_list import Said, warnings_of
from twinlens.callbacks.store.files import write_yaml


class ToldWarnings:
    """The warnings of one run, each said once, whether its stages were computed or read from the store.

    Args:
        folder: of the run; warnings of an earlier run in it are removed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said: list[Said] = []
        if is_first_process():
            (folder / WARNINGS_FILE).unlink(missing_ok=True)

    def tell(self, session: Session, stage: Stage, metrics: Mapping[str, float], directions: Directions) -> None:
        """Say what there is to say when a stage has ended, and keep it in warnings.yaml; absent where nothing is.

        Args:
            session: whose data were prepared.
            stage: that has ended.
            metrics: of the run so far, with what was odd in the data.
            directions: of the results so far, see `directions_of`.
        """
        if not is_first_process():
            return
        n_examples = sum(len(rows) for rows in session.data.splits.values())
        facts = Facts(RunFiles(self.folder), int(metrics.get("data/cut_text", 0)), n_examples, directions)
        new = [said for said in warnings_of(facts, stage) if said not in self.said]
        for sentence in new_sentences([said.sentence for said in new], self.folder):
            print(f"warning: {sentence}", flush=True)
        self.said += new
        if new:
            write_yaml(self.folder / WARNINGS_FILE, [said._asdict() for said in self.said])


def directions_of(finished: Mapping[str, Sequence[Result]]) -> Directions:
    """Which direction is better, of the results of each evaluation."""
    return {
        (name, result.metric, result.method): result.better
        for name, results in finished.items()
        for result in results
        if result.better
    }
