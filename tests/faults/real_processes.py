"""Tries of the fuzzers as processes: `python -m tests.faults.real_processes KIND COUNT [FIRST]`.

Each is a process with its own working directory, streams and exit code. One in ten is `python train.py …` from its
first line on; the others are forked from one that has imported the libraries, which spares their seconds.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

# read by the libraries when they are imported; one thread, since a forked process inherits no pools
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from tests.faults import fuzz_command_lines, fuzz_configurations
from tests.faults.fuzz_data_files import write_file
from tests.faults.fuzz_model_folders import ARGUMENTS, differs, files_below, make_try
from tests.faults.fuzzing import REPOSITORY, SECONDS, Case, Scratch
from tests.faults.model_folders import Made
from tests.faults.process import forked
from twinlens import train

ANEW = 10
"""One in so many is started as a shell starts it."""
PATIENCE = 40.0 * SECONDS
"""Seconds on the wall after which a process counts as one that hangs: machines are shared."""
PLAN = ("plan=true",)
DATA = ("model=tiny", "data=table", "data.text=[text]", "method=gradsim", "evaluation=accuracy", *PLAN)
CODES = {0: "served", 2: "refused"}

Ended = tuple[str, str]
"""What became of a process: `served`, `refused` or a fault; and what it wrote."""


def run(arguments: Sequence[str], work: Path, scratch: Scratch, anew: bool) -> Ended:
    """`python train.py …` in a folder."""
    if anew:
        return _started(arguments, work, scratch)

    def command() -> int:
        os.chdir(work)
        sys.path.append(str(scratch.modules))
        sys.argv = [train.__file__, *arguments]
        try:
            return train.main()
        except SystemExit as end:  # Hydra's own options
            return end.code if isinstance(end.code, int) else int(end.code is not None)

    log = scratch.work.parent / "log"
    log.unlink(missing_ok=True)
    ended = forked(command, log, kill_after=PATIENCE)
    return _judged(ended.code, log.read_text(errors="replace"), hangs=ended.after is not None)


def _started(arguments: Sequence[str], work: Path, scratch: Scratch) -> Ended:
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{scratch.modules}"}
    command = [sys.executable, str(REPOSITORY / "train.py"), *arguments]
    encoded = [argument.encode("utf-8", errors="surrogatepass") for argument in command]
    try:
        finished = subprocess.run(
            encoded, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=PATIENCE, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as late:
        return "hang", (late.stdout or b"").decode(errors="replace")
    return _judged(finished.returncode, finished.stdout.decode(errors="replace"), hangs=False)


def _judged(code: int, said: str, hangs: bool) -> Ended:
    if hangs:
        return "hang", said
    if "Traceback" in said or code not in CODES:
        return f"traceback or code {code}", said
    sentences = [line for line in said.splitlines() if line.startswith("refused: ")]
    if code == 2 and not sentences and "train.py: error: " not in said:
        return "no sentence", said
    return CODES[code], said


def of_case(generate: Callable[[int], Case]) -> Callable[[Path, int], Ended]:
    """A command line with its configurations, planned: nothing is computed or written."""

    def attempt(folder: Path, seed: int) -> Ended:
        scratch = Scratch(folder)
        os.chdir(scratch.work)
        case = generate(seed)
        if any("\0" in argument for argument in case.arguments):
            return "not passed", "no shell can pass it"
        scratch.lay(case)
        options = [argument for argument in case.arguments if argument.startswith("-")]
        ends_in_overrides = not case.arguments or not case.arguments[-1].startswith("-")
        first = ends_in_overrides or not options
        arguments = [*case.arguments, *PLAN] if first else [*PLAN, *case.arguments]
        became, said = run(arguments, scratch.work, scratch, seed % ANEW == 0)
        return scratch.harm(case) or became, f"{case.arguments}\n{case.files}\n{said}"

    return attempt


def of_data_file(folder: Path, seed: int) -> Ended:
    """A data file, planned."""
    scratch = Scratch(folder)
    file = write_file(scratch.work, seed)
    before = files_below(folder)
    became, said = run([*DATA, f"data.path={file}"], scratch.work, scratch, seed % ANEW == 0)
    return _unless_written(folder, before, became), said


def of_model_folder(folder: Path, seed: int) -> Ended:
    """A model folder, whose classifier predicts: its probabilities are those of plain transformers."""
    scratch = Scratch(folder)
    drawn, compared = folder / "drawn.json", folder / "compared"

    def make() -> int:
        drawn.write_text(json.dumps(asdict(make_try(scratch.work, seed, scratch.mark))))
        return 0

    if forked(make, folder / "made").code != 0:  # torch computes in processes of its own alone
        return "not made", (folder / "made").read_text()
    made = Made(**json.loads(drawn.read_text()))
    before = files_below(folder)
    became, said = run([*ARGUMENTS, "data.eval_batch_size=3"], scratch.work, scratch, seed % ANEW == 0)
    became = (scratch.mark.exists() and "foreign module imported") or _unless_written(folder, before, became)
    if became == "served":
        ended = next(line for line in reversed(said.splitlines()) if line.startswith((str(scratch.work), "outputs")))

        def compare() -> int:
            found = differs(scratch.work, Path(ended), made, said)
            print(found)
            return bool(found)

        if forked(compare, compared).code != 0:
            became, said = "silent difference", compared.read_text()
    return became, f"{made.words}: {said}"


def _unless_written(folder: Path, before: dict[str, object], became: str) -> str:
    """What became of a try, unless it has written or changed something beside its outputs."""
    changed = {name for name, _ in files_below(folder).items() ^ before.items()}
    strange = sorted(name for name in changed if "outputs" not in name and name not in ("log", "compared"))
    return f"file outside: {strange[:3]}" if strange else became


KINDS: dict[str, tuple[Callable[[Path, int], Ended], int]] = {
    "command_lines": (of_case(fuzz_command_lines.generate), 200_000),
    "configurations": (of_case(fuzz_configurations.generate), 200_000),
    "data_files": (of_data_file, 5_000),
    "model_folders": (of_model_folder, 1_000),
}
"""What is tried, and the first of its seeds, which no other series has."""


def main(kind: str, count: int, first: int | None = None) -> int:
    attempt, usual = KINDS[kind]
    counts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name).resolve()
        for seed in range(usual if first is None else first, (usual if first is None else first) + count):
            folder = root / str(seed)
            folder.mkdir()
            became, said = attempt(folder, seed)
            counts[became] += 1
            if became not in (*CODES.values(), "not passed"):
                print(f"seed {seed}: {became}: {said[-4000:]}", flush=True)
            os.chdir("/")
            shutil.rmtree(folder)
            if sum(counts.values()) % 25 == 0:
                print(dict(counts), flush=True)
    print(kind, count, json.dumps(counts), flush=True)
    return bool(set(counts) - {*CODES.values(), "not passed"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
