"""Watch over other processes: whose word is waited for."""

from __future__ import annotations

from threading import Event

import pytest

from twinlens.callbacks.processes import watchdog


@pytest.mark.parametrize(
    ("several", "error", "lost"),
    [
        (True, RuntimeError("[pair.cc:553] Connection closed by peer [127.0.0.1]:5549."), True),
        (True, ZeroDivisionError("division by zero"), False),
        (False, RuntimeError("Connection closed by peer"), None),
    ],
)
def test_of_a_process_that_has_left_the_word_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, several: bool, error: Exception, lost: bool | None
) -> None:
    """A refusal takes seconds to end a process, and its connections are closed before."""
    waited: list[float] = []
    monkeypatch.setattr(watchdog.time, "sleep", waited.append)
    monkeypatch.setattr(watchdog, "_watching", Event())  # of this process, which other tests may have set
    monkeypatch.setattr(watchdog, "are_watched", lambda: several)
    watchdog.let_the_watch_speak(error)
    assert [seconds == watchdog.LOST_PEER_SECONDS for seconds in waited] == ([] if lost is None else [lost])
