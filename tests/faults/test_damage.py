"""Results in the store that somebody harmed: named, computed again, the same numbers; never read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.running import CommandLine

ARGUMENTS = ("method=gradsim", "evaluation=accuracy")


def halve(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


HARM: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "fit": ("fit/*/model/model.safetensors", flip, "the content of model/model.safetensors has changed"),
    "predict": ("examples/*/features.safetensors", halve, "features.safetensors has"),
    "scores": ("attribute/*/test/dataset_info.json", Path.unlink, "test/dataset_info.json is missing"),
}


def test_what_was_harmed_is_computed_again_and_nothing_else(command: CommandLine) -> None:
    first = command(*ARGUMENTS)
    for pattern, harm, _ in HARM.values():
        harm(max(first.folder.parents[1].glob(f"store/{pattern}"), key=lambda file: file.stat().st_size))
    again = command(*ARGUMENTS)
    assert again.code == 0, again.err
    for _, _, told in HARM.values():
        assert told in again.out
    assert again.out.count("is damaged (") == len(HARM)
    assert "fit: computed" in again.out
    assert "gradsim: computed" in again.out
    assert (first.folder / "results.csv").read_text() == (again.folder / "results.csv").read_text()
    assert "is damaged" not in command(*ARGUMENTS).out
