"""End runs and sweeps by signals at random moments and compare what they come to: `python -m tests.faults.run`."""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

# read by the libraries when they are imported; one thread, so that the same sums are taken in the same order
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from tests.faults.evidence import differences, finished, last_stage, leftovers, numbers_of, redone
from tests.faults.process import AT_MOST, Ended, forked, import_what_runs_import, run_command

EPOCHS = 2
COMMAND = (
    f"trainer.max_epochs={EPOCHS}",
    "trainer.limit_train_batches=2",
    "trainer.accelerator=cpu",
    "data.n_train=60",
    "data.n_validation=10",
    "data.n_test=20",
    "data.n_twins=2",
    "data.limit.train=24",
    "data.limit.validation=8",
    "data.limit.test=8",
    "method=[ig,gradsim,na_instances]",
)
"""All stages in about two seconds, with several epochs and several shards per pass."""

LONGEST_CHAIN = 4
"""Kills in a row on one store, before the command may end, unless said otherwise."""
SHARE_LEFT = 0.6
"""Moments of later kills are drawn from at least this share of the undisturbed duration: each attempt has to start."""


@dataclass
class Tally:
    """What happened, over all kills.

    Attributes:
        kills: processes that a signal ended while they ran.
        signals: kills per signal.
        commands: commands that were killed once or several times and then ran to their end.
        stages: kills per stage that had begun last.
        slowest_end: most seconds from SIGTERM to the end of a process.
        wrong: differences from the undisturbed run, failed commands, files left behind; empty when all is well.
        shards_redone, epochs_redone: begun again, over all kills.
        beyond_one_per_kill: what one pass or fit began again beyond one shard or epoch per kill.
        finished_redone: finished entries and finished shards that were written again.
        seconds: of all this.
    """

    kills: int = 0
    signals: dict[str, int] = field(default_factory=dict)
    slowest_end: float = 0.0
    commands: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    shards_redone: int = 0
    epochs_redone: int = 0
    beyond_one_per_kill: int = 0
    finished_redone: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class Kind:
    """What is started: a run, or a sweep over two seeds.

    Attributes:
        arguments: of the command, but for the folder.
        folder: the key of the folder.
        runs: folders of the runs below that.
    """

    arguments: tuple[str, ...] = COMMAND
    folder: str = "hydra.run.dir"
    runs: tuple[str, ...] = (".",)


RUN = Kind()
SWEEP = Kind(("-m", *COMMAND, "seed=0,1"), "hydra.sweep.dir", ("0", "1"))


def measure(folder: Path, kind: Kind = RUN) -> tuple[float, Any]:
    """Duration and numbers of the undisturbed command."""
    ended = run_command(folder, [*kind.arguments, f"{kind.folder}=run"])
    if ended.code != 0:
        raise RuntimeError(f"the undisturbed run failed:\n{(folder / 'log').read_text()}")
    return ended.seconds, read_numbers(folder, folder / "run", kind)


def read_numbers(folder: Path, run: Path, kind: Kind = RUN) -> Any:
    """A command's numbers, read in a process of its own."""

    def work() -> int:
        (folder / "numbers.json").write_text(json.dumps({name: numbers_of(run / name) for name in kind.runs}))
        return 0

    if forked(work, folder / "log").code != 0:
        raise RuntimeError(f"{run} cannot be read:\n{(folder / 'log').read_text()}")
    return json.loads((folder / "numbers.json").read_text())


def kill_and_finish(
    folder: Path, draw: random.Random, duration: float, kills: int, expected: Any, tally: Tally, kind: Kind = RUN
) -> float:
    """Kill one command up to `kills` times in a row on one store, let it end, and add to the tally what came of it.

    Returns:
        the duration of an undisturbed run, as far as this one has shown a shorter one on a busy machine.
    """
    same_folder = draw.random() < 0.5  # a killed run's folder is used again, or left behind
    left, killed, before = duration, 0, {}
    for attempt in range(kills):
        run = "run" if same_folder else f"run{attempt}"
        by = draw.choice((signal.SIGKILL, signal.SIGTERM))
        arguments = [*kind.arguments, f"{kind.folder}={run}"]
        ended = run_command(folder, arguments, kill_after=draw.uniform(0.0, left), by=by)
        tally.finished_redone += _rewritten(before, finished(folder / "outputs" / "store"))
        before = finished(folder / "outputs" / "store")
        if ended.after is None or ended.code == 0:  # it ended before its moment came
            duration = min(duration, ended.seconds) if attempt == 0 else duration
            break
        killed += 1
        _judge_end(ended, by, tally)
        stage = last_stage(folder / "trace")
        tally.stages[stage] = tally.stages.get(stage, 0) + 1
        left = max(SHARE_LEFT * duration, left - ended.seconds)
    else:
        run = "run" if same_folder else "run_last"
        ended = run_command(folder, [*kind.arguments, f"{kind.folder}={run}"])
        tally.finished_redone += _rewritten(before, finished(folder / "outputs" / "store"))
    tally.kills += killed
    tally.commands += 1
    _judge(folder, run, ended, killed, expected, tally, kind)
    return duration


def _judge_end(ended: Ended, by: signal.Signals, tally: Tally) -> None:
    """SIGTERM ends a run in time with its own code; before the run has begun, with the signal's."""
    tally.signals[by.name] = tally.signals.get(by.name, 0) + 1
    allowed = (-signal.SIGKILL,) if by == signal.SIGKILL else (143, -signal.SIGTERM)
    if ended.code not in allowed:
        tally.wrong.append(f"{by.name} ended a run with code {ended.code}")
    if by == signal.SIGTERM and ended.after is not None:
        tally.slowest_end = max(tally.slowest_end, ended.after)
        if ended.after > AT_MOST:
            tally.wrong.append(f"SIGTERM took {ended.after:.1f} s")


def _judge(folder: Path, run: str, ended: Ended, killed: int, expected: Any, tally: Tally, kind: Kind) -> None:
    if ended.code != 0:
        tally.wrong.append(f"{_seen(folder)} ended with code {ended.code}")
        return
    told = (folder / "log").read_text()
    if "Traceback" in told:
        place = told.index("Traceback")
        tally.wrong.append(f"a traceback: {told[max(0, place - 500) : place + 5000]}")
    tally.wrong += differences(expected, read_numbers(folder, folder / run, kind))[:3]
    tally.wrong += [f"left behind: {name}" for name in leftovers(folder / "outputs") + leftovers(folder / run)]
    again = redone(folder / "trace")
    tally.shards_redone += again.shards
    tally.epochs_redone += again.epochs
    beyond = killed + EPOCHS * (len(kind.runs) - 1)  # the second run of a sweep begins each of its epochs once
    tally.beyond_one_per_kill += max(0, again.worst_pass - killed) + max(0, again.epochs - beyond)


def _rewritten(before: dict[str, tuple[int, int]], after: dict[str, tuple[int, int]]) -> list[str]:
    return [name for name, state in before.items() if after.get(name) != state]


def _seen(folder: Path) -> str:
    """The end of a command's output."""
    return (folder / "log").read_text()[-2000:]


def inject(kills: int, seed: int, root: Path, longest_chain: int = LONGEST_CHAIN, kind: Kind = RUN) -> Tally:
    """Kill commands until `kills` of them were killed while they ran."""
    draw = random.Random(seed)
    start = time.monotonic()
    first, undisturbed = root / "first", root / "undisturbed"
    first.mkdir()
    undisturbed.mkdir()
    import_what_runs_import(first, COMMAND)
    duration, expected = measure(undisturbed, kind)
    print(f"an undisturbed run takes {duration:.2f} s", flush=True)
    tally = Tally()
    while tally.kills < kills:
        folder = root / f"command{tally.commands}"
        folder.mkdir()
        wrong = len(tally.wrong) + len(tally.finished_redone) + tally.beyond_one_per_kill
        in_a_row = min(draw.randint(1, longest_chain), kills - tally.kills)
        duration = kill_and_finish(folder, draw, duration, in_a_row, expected, tally, kind)
        if len(tally.wrong) + len(tally.finished_redone) + tally.beyond_one_per_kill == wrong:
            shutil.rmtree(folder)  # what went wrong is kept to be looked at
        else:
            print(f"look at {folder}", flush=True)
        tally.seconds = time.monotonic() - start
        (root / "tally.json").write_text(json.dumps(asdict(tally), indent=2))
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="processes to kill while they run")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--in-a-row", type=int, default=LONGEST_CHAIN, help="most kills of one command")
    parser.add_argument("--sweeps", action="store_true", help="sweeps over two seeds instead of runs")
    parser.add_argument("--folder", type=Path, help="where the runs go; kept afterwards (default: a temporary one)")
    given = parser.parse_args()
    root = given.folder or Path(tempfile.mkdtemp(prefix="twinlens-faults-"))
    root.mkdir(parents=True, exist_ok=True)
    tally = inject(given.kills, given.seed, root.resolve(), given.in_a_row, SWEEP if given.sweeps else RUN)
    well = not (tally.wrong or tally.finished_redone or tally.beyond_one_per_kill)
    if given.folder is None and well:
        shutil.rmtree(root)
    print(json.dumps(asdict(tally), indent=2))
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
