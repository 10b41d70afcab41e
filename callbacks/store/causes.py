"""What an error was raised from, each error once: one that was raised from itself ends the walk as well."""

from __future__ import annotations

from collections.abc import Iterator

from twinlens.attribution.protocols import UserError


def chain_of(error: BaseException, handled: bool = True) -> Iterator[BaseException]:
    """The error, then what it was raised from, then what that was raised from.

    Args:
        error: where the walk begins.
        handled: follow also what was being handled when an error was raised without naming a cause.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (current.__context__ if handled else None)


def user_error_in(error: BaseException) -> UserError | None:
    """The first error among an error's named causes that the user can mend."""
    return next((cause for cause in chain_of(error, handled=False) if isinstance(cause, UserError)), None)
