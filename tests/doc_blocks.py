"""Code blocks of README and docs: which there are, which lines are not run here and why, and what lines name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.adapters import write_adapter, write_base

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = [
    *(REPOSITORY / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]
BLOCK = re.compile(r"(?:^<!-- not run: (?P<marks>[^\n]*) -->\n)?^```(?P<language>\w+)\n(?P<text>.*?)^```$", re.M | re.S)
HUB_MODELS = "opt125m|pythia410m|bloom560m|gpt2|gpt2large|llama7b"
NOT_RUN = {
    "installs": r"^(make|pip|python3 -m venv) ?|^\.venv/bin/python -m pytest",
    "another machine": r"^(srun|torchrun) |hydra/launcher=submitit|trainer=(ddp|fsdp)\b(?!_)|CUDA_VISIBLE_DEVICES",
    "hub": rf"\bmodel=(?:{HUB_MODELS})\b(?!.*model\.path=)|\bdata=(?:averitec|mnli|cosqa)\b(?!.*data\.path=)"
    r"|\bmodel=gpt2large\b(?!.*plan=true)|\bpush=hub:",
    "minutes": r"^python -m (tests|benchmarks)\.|neuron_level/pretrain|fact_tokenizer",
}
"""Reason → what a line looks like that is not run for it: it installs things or runs the whole suite, needs GPUs or a
cluster, asks the Hugging Face hub for a model or data (or GPT2-large for what it knows), or takes minutes in
any size."""


@dataclass(frozen=True)
class Block:
    """A code block: its page, its place among the page's blocks, its language, its text, the reasons of its mark."""

    page: Path
    number: int
    language: str
    text: str
    marks: tuple[str, ...]

    @property
    def name(self) -> str:
        """The page from the project's folder, and the block's number there."""
        return f"{self.page.relative_to(REPOSITORY)}:{self.number}"


def blocks(*languages: str) -> Iterator[Block]:
    """Every block of these languages, in the order of the pages."""
    for page in PAGES:
        for number, found in enumerate(BLOCK.finditer(page.read_text(encoding="utf-8"))):
            if found["language"] in languages:
                marks = tuple((found["marks"] or "").split(", ")) if found["marks"] else ()
                yield Block(page, number, found["language"], found["text"], marks)


def lines(block: Block) -> list[str]:
    """Command lines of a bash block, without comments."""
    plain = (re.sub(r"(^|\s+)#.*$", "", line).strip() for line in block.text.replace("\\\n", " ").splitlines())
    return [line for line in plain if line]


def why_not(line: str) -> str:
    """The reason for which a line is not run here; empty where it is."""
    return next((reason for reason, pattern in NOT_RUN.items() if re.search(pattern, line)), "")


def filled(line: str, run: Path, shared: Path, files: Path) -> str:
    """A line with files of the test in the places of DIR, FILE, RUN, ADAPTER and others that a reader has himself."""
    model = re.search(r"\bmodel=(\w+)", line)
    data = re.search(r"\bdata=(\w+)", line)
    text = "knowledge" if data is None and "neuron_level" in line else data[1] if data else ""
    language_model = text in ("texts", "knowledge") or "texts/facts" in line
    stories = shared / "stories260k" / "hf"
    checkpoint = {"opt125m": files / "opt", "llama7b": stories}.get(
        model[1] if model else "", stories if language_model else run / "model"
    )
    if "choice" in text or text == "cosqa":
        checkpoint = files / "opt"
    folder = {"averitec": "averitec", "mnli": "mnli", "cosqa": "commonsenseqa"}
    table = files / ("topics" if "data.label=topic" in line else "table.csv")
    path = shared / folder[text] if text in folder else shared / "averitec" if "averitec" in line else table
    for name, place in (
        ("model.path=DIR", f"model.path={checkpoint}"),
        ("model.path=ADAPTER", f"model.path={files / 'adapter'}"),
        ("data.path=DIR", f"data.path={path}"),
        ("data.path=FILE", f"data.path={files / 'prompts.jsonl' if text == 'knowledge' else table}"),
        ("data.test_path=FILE", f"data.test_path={shared / 'hans' / 'hans_subset_tammet.tsv'}"),
        ("train:FILE,test:FILE", f"train:{table},test:{table}"),
        ("outputs/runs/RUN1,outputs/runs/RUN2", f"{run},{files / 'other_run'}"),
        ("outputs/runs/RUN", str(run)),
        ("outputs/sweeps/SWEEP", str(run)),
        ("report.of=RUN ", f"report.of={run} "),
        ("lds_at_40", "lds_at_5"),
        ("=RUN/model", f"={run / 'model'}"),
        (" RUN", f" {run}"),
    ):
        line = line.replace(name, place)
    if text == "mnli" and "split_validation" not in line:  # its train split is not at hand
        line += " data.split_validation=true"
    return line


def write_files(folder: Path, run: Path, shared: Path) -> Path:
    """What a reader of the pages has at hand: tables, documents, prompts, checkpoints, an adapter; gives the folder."""
    labels = ("supported", "refuted", "not enough info")
    rows = [(f"The judge {n} saw the poet.", f"A poet was seen by judge {n}.", labels[n % 3]) for n in range(90)]
    table = ["premise,hypothesis,text,label,topic", *(f"{a},{b},{a} {b},{label},{label}" for a, b, label in rows)]
    (folder / "topics").mkdir(parents=True)
    shutil.copytree(run, folder / "other_run")
    header, *lines = (run / "results.csv").read_text(encoding="utf-8").splitlines()
    theirs = next(line.replace(",gradsim,", ",theirs,", 1) for line in lines if ",gradsim," in line)
    (folder / "theirs.csv").write_text(f"{header}\n{theirs}\n", encoding="utf-8")
    for name in ("table.csv", "topics/train.csv", "topics/test.csv"):
        (folder / name).write_text("\n".join(table) + "\n", encoding="utf-8")
    stories = json.loads((shared / "text" / "tinystories_1000.json").read_text(encoding="utf-8"))
    (folder / "tinystories_1000.json").write_text(json.dumps(stories), encoding="utf-8")
    short = [" ".join(story.split()[:40]) for story in stories[:60]]
    queries = [
        {"prompt": " ".join(text.split()[:8]), "completion": " " + " ".join(text.split()[8:11]), "topic": f"t{n % 2}"}
        for n, text in enumerate(short[:8])
    ]
    prompts = [{"prompt": q["prompt"], "answer": str(q["completion"]).split()[0], "type": "capital"} for q in queries]
    prompts += [{**prompt, "type": "month"} for prompt in prompts[:4]]
    written = {"docs": [{"text": text} for text in short], "chat": queries, "questions": queries, "q": queries}
    for name, content in {**written, "prompts": prompts}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    (folder / "docs").mkdir()
    for number, text in enumerate(short):
        (folder / "docs" / f"{number}.txt").write_text(text, encoding="utf-8")
    write_base(folder / "opt", "opt", max_position_embeddings=512)
    write_adapter(folder / "adapter", run / "model")
    for step, name in ((100, "checkpoint-100"), (200, "checkpoint-200"), (300, "final")):
        shutil.copytree(shared / "stories260k" / "hf", folder / "out" / name)
        state = {"global_step": step, "log_history": [{"step": step, "loss": 1.0, "learning_rate": 1e-4}]}
        (folder / "out" / name / "trainer_state.json").write_text(json.dumps(state), encoding="utf-8")
    return folder
