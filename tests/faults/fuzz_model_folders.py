"""Folders of classifiers, sound and faulty, are read as plain transformers reads them, or refused in one sentence.

`python -m tests.faults.fuzz_model_folders 100 [FIRST]` tries them in one process and prints what became of them.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import torch

from tests.faults.fuzzing import Hangs, alarm
from tests.faults.model_folders import Made, make_folder, quiet

ARGUMENTS = (
    "model=local", "model.path=model", "fit=false", "data=table", "data.path=texts.jsonl", "data.text=[text]",
    "data.label=null", "method=[]", "evaluation=[]", "trainer.accelerator=cpu",
)  # fmt: skip
BATCHES = (1, 3)
"""Examples per batch; the probabilities of each are compared with those of one text at a time."""
REFUSED = "refused: "
CLOSE = 1e-5


def attempt(folder: Path, seed: int, sizes: Sequence[int] = BATCHES) -> tuple[str, str]:
    """Read the model folder of a seed with `train.main()`, in an empty folder.

    Args:
        folder: the empty one.
        seed: of everything drawn.
        sizes: of the batches.

    Returns:
        What became of it: `read`, `refused` or a fault; and what was said, with what was drawn.
    """
    mark = folder / "imported"
    work = folder / "work"
    work.mkdir()
    made = make_try(work, seed, mark)
    before = files_below(folder)
    became, said = _outcome(work, made, sizes)
    if mark.exists() or (work / "ran").exists():
        became = "code of a stranger ran"
    elif changed := {name for name, state in (files_below(folder).items() ^ before.items()) if "outputs" not in name}:
        became = f"files outside: {sorted(changed)[:3]}"
    elif became == "refused" and made.sound:
        became = "a sound one is refused"
    return became, f"seed {seed} {made.words}: {said}"


def make_try(work: Path, seed: int, mark: Path) -> Made:
    """The model folder of a seed and the texts that it reads."""
    made = make_folder(work / "model", seed, mark)
    (work / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in made.texts))
    return made


def _outcome(work: Path, made: Made, sizes: Sequence[int]) -> tuple[str, str]:
    said = ""
    for size in sizes:
        try:
            with alarm():
                code, out, err = run(work, f"data.eval_batch_size={size}", f"paths.store=outputs/store{size}")
        except Hangs:
            return "hang", said
        told = [line for line in err.splitlines() if line.startswith(REFUSED)]
        if code not in (0, 2) or "Traceback" in err:
            return f"traceback or code {code}", err[-3000:]
        if code == 2:
            one = len(told) == 1 and 20 < len(told[0]) < 2000 and told[0].endswith((".", "?"))
            return ("refused" if one else "no sentence"), err[-1500:]
        if not out.strip():
            return "nothing said", err
        difference = differs(work, Path(out.strip().splitlines()[-1]), made, out)
        if difference:
            return "silent difference", f"batches of {size}: {difference}"
        said = out
    return "read", said


def run(work: Path, *more: str) -> tuple[int, str, str]:
    """`python train.py …` in this process: its exit code and what it wrote."""
    from hydra.core.global_hydra import GlobalHydra

    from twinlens import train

    out, err, arguments = io.StringIO(), io.StringIO(), sys.argv
    train.OUTCOMES.clear()
    GlobalHydra.instance().clear()
    sys.argv = [train.__file__, *ARGUMENTS, *more]
    try:
        with _inside(work), redirect_stdout(out), redirect_stderr(err), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = train.main()
    finally:
        sys.argv = arguments
    return code, out.getvalue(), err.getvalue()


@torch.no_grad()
def differs(work: Path, run_folder: Path, made: Made, out: str) -> str:
    """How the probabilities that a run has written differ from those of plain transformers, empty where they do not.

    Plain transformers reads one text at a time, in float32 as this project does, without a second token of beginning,
    and cut at its end where a model's positions are learned; the run has to say both.
    A form that the folder says it was trained with here is kept.
    """
    import datasets
    from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

    rows = datasets.load_from_disk(str(work / run_folder / "examples" / "test"))
    try:
        with _inside(work), quiet(), tempfile.TemporaryDirectory() as temporary:
            own = _with_absolute_base(Path("model"), Path(temporary) / "model")
            folder = _with_config(own)
            tokenizer = AutoTokenizer.from_pretrained("model" if Path("model/tokenizer.json").is_file() else folder)
            config: Any = AutoConfig.from_pretrained(folder)
            model = AutoModelForSequenceClassification.from_pretrained(own, dtype=torch.float32).eval()
            learned = config.model_type in ("gpt2", "opt", "gpt_neo")
            at_most = config.max_position_embeddings if learned else None
            own_form = getattr(config, "twinlens_input", None) or {}  # with which a run here has trained it
            for row, text in zip(rows, made.texts, strict=True):
                ids = tokenizer(own_form.get("template", "{text}").replace("{text}", text))["input_ids"]
                ids = ids[: own_form.get("max_length")]
                if at_most is not None and len(ids) > at_most:
                    ids = tokenizer(text, truncation=True, max_length=at_most)["input_ids"]
                    if f"cut to {at_most} tokens" not in out:
                        return f"{text!r} is cut without a word"
                if text.startswith("<bos>") and "begin with <bos>" in out:  # a second one is not put before it
                    ids = ids[1:]
                given = torch.tensor([ids])
                expected = model(input_ids=given, attention_mask=torch.ones_like(given)).logits.softmax(-1)[0]
                found = torch.tensor(row["prob"])
                if row["text"] != text or not torch.allclose(found, expected, atol=CLOSE, rtol=CLOSE):
                    return f"{text!r} has {row['prob']}, plain transformers gives {expected.tolist()}"
    except Exception as error:
        return f"plain transformers does not read it: {type(error).__name__}: {error}"
    return ""


def _with_config(model: Path) -> Path:
    """The folder with config.json: that of the base, of an adapter."""
    if (model / "config.json").is_file():
        return model
    return Path(json.loads((model / "adapter_config.json").read_text())["base_model_name_or_path"])


def _with_absolute_base(model: Path, copy: Path) -> Path:
    """The folder, or a copy of an adapter whose base is named from its folder, which PEFT does not look up there."""
    settings = model / "adapter_config.json"
    named = Path(json.loads(settings.read_text())["base_model_name_or_path"]) if settings.is_file() else None
    if named is None or named.is_absolute() or not (model / named).is_dir():
        return model
    shutil.copytree(model, copy)
    changed = {**json.loads(settings.read_text()), "base_model_name_or_path": str((model / named).resolve())}
    (copy / settings.name).write_text(json.dumps(changed))
    return copy


@contextmanager
def _inside(folder: Path) -> Any:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def files_below(folder: Path) -> dict[str, Any]:
    """Size and time of every file below a folder, by its path there."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {
        path.relative_to(folder).as_posix(): (state.st_size, state.st_mtime_ns)
        for path, state in found.items()
        if not path.is_dir()
    }


def tries(root: Path, seeds: Iterable[int], tell: Any = None, one_size: bool = False) -> tuple[Counter[str], list[str]]:
    """How often each outcome came up, and what was said where it is a fault; with `one_size` each folder is read in
    batches of one size, now the one, now the other."""
    counts: Counter[str] = Counter()
    faults = []
    for number, seed in enumerate(seeds, start=1):
        folder = root / str(seed)
        folder.mkdir()
        sizes = (BATCHES[seed % len(BATCHES)],) if one_size else BATCHES
        became, said = attempt(folder, seed, sizes)
        counts[became] += 1
        if became not in ("read", "refused"):
            faults.append(f"{became}: {said}")
        if tell is not None:
            tell(number, became, said)
        shutil.rmtree(folder)
    return counts, faults


def main(count: int, first: int = 0) -> int:
    def tell(number: int, became: str, said: str) -> None:
        if became not in ("read",):
            print(f"{became}: {said}", flush=True)
        if number % 25 == 0:
            print(number, flush=True)

    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counts, faults = tries(Path(root), range(first, first + count), tell)
    print(count, dict(counts), sep="\n")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
