"""Record of a benchmark run: JSON with everything measured, and a markdown table."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from datetime import date
from importlib import metadata
from pathlib import Path

import torch

from benchmarks.pairs import Comparison

PACKAGES = ("twinlens", "torch", "transformers", "captum", "kronfluence", "dattri", "numpy")


def environment() -> dict[str, object]:
    """Processor, cores and versions; nothing that names the machine or its user."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "system": platform.system(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    """Model name of the processor."""
    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"


def version(package: str) -> str | None:
    """Installed version, None where the package is absent."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def write(
    folder: Path,
    command: str,
    settings: Mapping[str, object],
    comparisons: Sequence[Comparison],
    values: Mapping[str, float],
    skipped: Mapping[str, str],
) -> Path:
    """Write `<date>.json` and `<date>.md`; returns the former's path."""
    folder.mkdir(parents=True, exist_ok=True)
    today = date.today().isoformat()
    machine = environment()
    record = {
        "date": today,
        "command": command,
        "machine": machine,
        "settings": dict(settings),
        "comparisons": {item.name: as_record(item) for item in comparisons},
        "values": dict(values),
        "skipped": dict(skipped),
    }
    file = folder / f"{today}.json"
    file.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    table = markdown(comparisons, values, skipped)
    heading = (
        f"`{command}`, {today}: {machine['processor']}, threads: {machine['threads']}, torch {machine['torch']}\n\n"
    )
    file.with_suffix(".md").write_text(heading + table, encoding="utf-8")
    return file


def as_record(item: Comparison) -> dict[str, object]:
    """All times of a comparison and what follows from them."""
    return {
        "ratio": item.ratio,
        "ratios": item.ratios,
        "ours_seconds": item.ours,
        "ours_median_seconds": statistics.median(item.ours),
        "peer_seconds": item.peer,
        "peer_median_seconds": statistics.median(item.peer),
        "peer_timed_parts_seconds": item.peer_parts,
        "relative_difference": item.difference,
        "tolerance": item.tolerance,
        "note": item.note,
    }


def markdown(comparisons: Sequence[Comparison], values: Mapping[str, float], skipped: Mapping[str, str]) -> str:
    """One row per ratio, then the other values."""
    lines = [
        "| comparison | twinlens, s | peer, s | ratio (median) | lowest … highest | relative difference |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for item in comparisons:
        agreement = "" if item.difference is None else f"{item.difference:.1e}"
        lines.append(
            f"| {item.name} | {statistics.median(item.ours):.3f} | {statistics.median(item.peer):.3f} "
            f"| {item.ratio:.3g} | {min(item.ratios):.3g} … {max(item.ratios):.3g} | {agreement} |"
        )
    lines += [f"| {name} | | | {reason} | | |" for name, reason in skipped.items()]
    lines += ["", "| value | |", "|---|---:|", *(f"| {name} | {value:.2e} |" for name, value in values.items())]
    return "\n".join(lines) + "\n"
