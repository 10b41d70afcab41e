"""Tables on the terminal: only what is new in a sweep, every number whole, cut names in a legend."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.callbacks.results.test_results_csv import row
from twinlens.callbacks.results.formatting import format_table
from twinlens.callbacks.results.told_rows import OWN_OUTPUT, PRINTED, SWEEP_NOTES, new_rows, new_sentences


def test_a_later_job_of_a_sweep_shows_what_is_new(tmp_path: Path) -> None:
    (tmp_path / SWEEP_NOTES).mkdir()
    first, second, third = row(), row(metric="accuracy"), row(value=62.0)
    assert new_rows([first, second], tmp_path / "0") == [first, second]
    assert new_rows([first, third, second], tmp_path / "1") == [third]
    assert new_rows([first, third], tmp_path / "2") == []
    assert len((tmp_path / SWEEP_NOTES / PRINTED).read_text().split()) == 3


def test_a_later_job_of_a_sweep_says_what_is_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / SWEEP_NOTES).mkdir()
    assert new_sentences(["one", "two"], tmp_path / "0") == ["one", "two"]
    assert new_sentences(["two", "three"], tmp_path / "1") == ["three"]
    monkeypatch.setenv(OWN_OUTPUT, "slurm")  # its output is no terminal that shows other jobs
    assert new_sentences(["one"], tmp_path / "2") == ["one"]


def test_a_run_of_no_sweep_shows_all(tmp_path: Path) -> None:
    assert new_rows([row()], tmp_path / "0") == new_rows([row()], tmp_path / "0") == [row()]
    assert new_sentences(["one"], tmp_path / "0") == new_sentences(["one"], tmp_path / "0") == ["one"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [72, 80, 100])
def test_a_cut_name_stands_in_full_below_and_no_number_is_cut(width: int) -> None:
    wide = {"stderr": 0.0, "low": -123456.789, "high": 987654.321}
    names = {"group": "knowledge=of_the_third_kind", "reference_group": "another_method_with_a_long_name"}
    names |= {"metric": "sufficiency_drop", "variant": "positions=all; control=matched"}
    methods = [f"a_method_with_a_very_long_name_{i}" for i in range(2)]
    rows = [row(method=method, value=0.1234567, k=100, **names, **wide) for method in methods]
    text = format_table(rows, {}, width)
    table, _, legend = text.partition("names in full")
    assert max(map(len, text.splitlines())) <= max(width, 76)  # numbers and letters alone take 76
    assert table.count("0.1235 [-123000, 988000]") == 2
    assert table.count(" @100") == 2
    joined = "".join(line.strip() for line in legend.splitlines())
    for name in (
        "a_method_with_a_very_long_name_0",
        "a_method_with_a_very_long_name_1",
        "positions=all; control=matched",
    ):
        assert name in joined
    letters = [line.split()[0] for line in legend.splitlines() if line.startswith("  (")]
    assert len(letters) == len(set(letters))
    assert all(letter in table for letter in letters)


def test_a_wide_terminal_shows_names_whole() -> None:
    long = row(method="a_method_with_a_very_long_name" * 3, group="g" * 30)
    assert "names in full" in format_table([long], {}, 100)
    assert "names in full" not in format_table([long], {}, 180)
