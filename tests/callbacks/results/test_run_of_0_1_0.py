"""Run folders of 0.1.0 replay to the same results, and are read by the report and the sweep's tables.

`run_of_0_1_0/` holds the text files of two runs that the code of commit 7f5e1c8 wrote, in double precision, so that
other builds of the libraries give the same numbers; their `overrides.yaml` say how. `paths.store` was set to the usual
place afterwards.
"""

from __future__ import annotations

import json
import math
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.golden.cases import name_of
from tests.running import CommandLine
from twinlens.callbacks.report.page import write_report
from twinlens.callbacks.results.results_csv import read_results
from twinlens.callbacks.results.run_files import RunFiles
from twinlens.callbacks.sweep.jobs import finished_jobs
from twinlens.callbacks.sweep.summary import summarise
from twinlens.conf.checking.former_names import PACKAGES, READ_UNTIL, current_output

FORMER = Path(__file__).parent / "run_of_0_1_0"
NUMBERS = ("value", "stderr", "n")
BARE = re.compile(rf"_target_: (?:{'|'.join(PACKAGES)})\.")


@pytest.mark.parametrize("kind", ["demo", pytest.param("token", marks=pytest.mark.long)])
def test_a_run_of_before_replays_and_is_read(kind: str, command: CommandLine, tmp_path: Path) -> None:
    former = FORMER / kind
    assert BARE.search((former / "config.yaml").read_text())
    finished = command("--config-dir", str(former), "--config-name", "config", "hydra.run.dir=run", base=())
    assert finished.code == 0, finished.err
    said = [line for line in finished.out.splitlines() if line.startswith("former names: ")]
    assert len(said) == 1
    meant = [line for line in finished.out.splitlines() if line.startswith("explain: this configuration is older")]
    assert len(meant) == 1
    assert all(f"until version {READ_UNTIL}" in line for line in (*said, *meant))
    assert "models.module.TextClassifier as twinlens.models.module.TextClassifier" in said[0]
    run = tmp_path / "run"
    assert not BARE.search((run / "config.yaml").read_text())  # the next replay has nothing to say
    same_results(run, former)
    former_names = {current_output(path.stem) for path in (former / "tables").glob("*.csv")}
    assert former_names <= {path.stem for path in (run / "tables").glob("*.csv")}
    # the files that 0.1.0 wrote in the place of those that were written now
    for name in ("config.yaml", "overrides.yaml", "metrics.json", "results.csv"):
        shutil.copy(former / name, run / name)
    shutil.rmtree(run / "tables")
    (run / "outcomes.safetensors").unlink(missing_ok=True)
    shutil.copytree(former / "tables", run / "tables")
    shutil.rmtree(run / "figures")
    for path in (run / "scores").rglob("method.yaml"):
        settings = yaml.safe_load(path.read_text())
        path.unlink()
        path.write_text(yaml.safe_dump({key: value for key, value in settings.items() if key != "format"}))
    files = RunFiles(run)
    assert set(files.tables) == former_names
    assert {scores.name for scores in files.scores} == set(files.config["method"])
    write_report(run)
    page = (run / "report.html").read_text()
    assert "knowledge_table" not in page
    assert set(RunFiles(run).tables) == former_names  # tables of both names are one
    (job,) = finished_jobs(tmp_path, [{"job": "0", "status": "done", "overrides": "", "folder": "run"}])
    assert len(summarise([job])) == len(read_results(former / "results.csv"))


def same_results(run: Path, former: Path) -> None:
    """All rows, and in metrics.json all names, with the same numbers; there may be others by now."""
    now, before = read_results(run / "results.csv"), read_results(former / "results.csv")
    now = [row for row in now if row["method"] != "no_neurons"]  # the base line of faithfulness came later
    assert len(before) > 10
    by_name = {name_of(row): row for row in now}
    assert len(by_name) == len(now)
    for theirs in before:
        mine = by_name[name_of(theirs)]
        assert mine["control"] == theirs["control"]
        for name in NUMBERS:
            same_number(mine[name], theirs[name])
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (run, former)]
    metrics = [{name: value for name, value in each.items() if "/no_neurons/" not in name} for each in metrics]
    assert metrics[0].pop("format") == 1
    assert "format" not in metrics[1]
    assert set(metrics[0]) >= set(metrics[1])
    for name, value in metrics[1].items():
        if not name.startswith("time/"):
            same_number(value, metrics[0][name])


def same_number(mine: object, theirs: object) -> None:
    if mine is None or theirs is None:
        assert mine is theirs
    else:
        assert math.isclose(float(str(mine)), float(str(theirs)), rel_tol=1e-7, abs_tol=1e-9)
