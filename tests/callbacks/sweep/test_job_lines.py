"""Jobs of a sweep on the terminal: what is common once, lines that fit, refusals whole."""

from __future__ import annotations

from twinlens.callbacks.sweep.job_lines import job_began, job_ended, job_lines


def job(number: int, overrides: str, status: str = "done", message: str = "") -> dict[str, object]:
    headline = "" if message else "accuracy/accuracy=0.7"
    return {"job": number, "status": status, "overrides": overrides, "headline": headline, "message": message}


def test_what_all_jobs_have_stands_once() -> None:
    lines = job_lines(
        [job(0, "debug=fdr method=ig seed=0"), job(1, "debug=fdr method=ig seed=1", "refused", "no room")]
    )
    assert lines == [
        "  all with debug=fdr method=ig",
        "  job  status   headline               overrides",
        "  0    done     accuracy/accuracy=0.7  seed=0",
        "  1    refused                         seed=1",
        "job 1: no room",
    ]


def test_one_job_and_no_overrides_are_lines_too() -> None:
    assert job_lines([job(0, "seed=1")])[-1].split() == ["0", "done", "accuracy/accuracy=0.7", "seed=1"]
    assert job_lines([job(0, ""), job(1, "")])[-1].split() == ["1", "done", "accuracy/accuracy=0.7"]


def test_long_overrides_go_on_below_and_are_never_cut() -> None:
    words = [f"method.influence.setting_{n}=0.123456" for n in range(9)]
    lines = job_lines([job(0, " ".join(words)), job(1, "seed=1")], 100)
    assert max(map(len, lines)) <= 100
    assert [word for word in words if word not in " ".join(lines).split()] == []


def test_a_job_says_when_it_begins_and_how_it_ended() -> None:
    assert job_began(3, ["method=ig", "seed=1"]) == "\njob 3: method=ig seed=1"
    assert job_ended(job(3, "")) == "job 3: done, accuracy/accuracy=0.7"
    assert job_ended(job(3, "", "refused", "no room")) == "job 3: refused, no room"
