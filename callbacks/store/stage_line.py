"""The line in which a run says what became of a stage: computed in how long, or read from the store and made when."""

from __future__ import annotations

import time


def stage_line(title: str, seconds: float | None, made: float | None, now: float | None = None) -> str:
    """For example `fit: computed in 21 s`, or `fit: read from the store, made 29 Nov 14:07`.

    Args:
        title: what the stage is for a reader, as in `ig on train`.
        seconds: what computing it took; None: it was read.
        made: when it was computed, seconds since 1970; None or 0: nobody knows.
        now: seconds since 1970, by default of the clock; the year is said where it is another.
    """
    if seconds is not None:
        return f"{title}: computed in {time_in_words(seconds)}"
    return f"{title}: read from the store" + (f", made {_day(made, now)}" if made else "")


def time_in_words(seconds: float | None) -> str:
    """For example `<1 s`, `4.2 s`, `42 s`, `3.5 min`, `12 h`."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return "<1 s"
    for unit, factor, limit in (("s", 1, 120), ("min", 60, 7200)):
        if seconds < limit:
            value = seconds / factor
            return f"{value:.0f} {unit}" if value >= 10 else f"{value:.1f} {unit}"
    return f"{seconds / 3600:.1f} h"


def _day(made: float, now: float | None) -> str:
    """Day and time here, `29 Nov 14:07`; of another year `29 Nov 2025`."""
    then, today = time.localtime(made), time.localtime(now)
    month = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")[then.tm_mon - 1]
    if then.tm_year != today.tm_year:
        return f"{then.tm_mday} {month} {then.tm_year}"
    return f"{then.tm_mday} {month} {then.tm_hour:02d}:{then.tm_min:02d}"
