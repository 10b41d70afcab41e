"""Sentences about names that do not exist: an option of a group, a key. They need no library."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from twinlens.attribution.errors import UserError
from twinlens.conf.checking.suggestions import advice, nearest


def no_such_choice(line: str, group: str, name: str, options: Iterable[str]) -> UserError:
    """The sentence for an option of a group that does not exist.

    Args:
        line: as typed.
        group, name: what it asks for.
        options: of the group.
    """
    return UserError(f"{line}: there is no such {group}{advice(name, options)}")


def unknown_key(line: str, key: str, keys: Sequence[str]) -> UserError:
    """The sentence for a key that does not exist.

    Args:
        line: as typed.
        key: dotted.
        keys: of the configuration, dotted.
    """
    near = nearest_key(key, keys)
    parent = key.rpartition(".")[0]
    beside = sorted({path.rpartition(".")[2] for path in keys if path.rpartition(".")[0] == parent})
    meant = f"did you mean {near!r}?" if near else "nothing like it exists."
    listed = f" Keys {f'of {parent}' if parent else 'at the top level'}: {', '.join(beside)}." if beside else ""
    return UserError(f"unknown key {key!r} in {line}; {meant}{listed}")


def known_parent(key: str, keys: Collection[str]) -> str:
    """The longest beginning of a dotted key that is a key itself; empty where there is none."""
    parent = key
    while "." in parent:
        parent = parent.rpartition(".")[0]
        if parent in keys:
            return parent
    return ""


def nearest_key(path: str, keys: Iterable[str]) -> str | None:
    """The key of the configuration that was probably meant by a dotted `path` that does not exist.

    First among the keys beside it, then any key that ends in the same word.
    """
    known = list(keys)
    parent, _, last = path.rpartition(".")
    beside = {key.rpartition(".")[2]: key for key in known if key.rpartition(".")[0] == parent}
    near = nearest(last, beside)
    if near is not None:
        return beside[near]
    ending = [key for key in known if key.rpartition(".")[2] == last]
    if len(ending) == 1:
        return ending[0]
    # Whole paths look alike wherever their beginnings agree, so they only help where the beginning itself is wrong.
    return nearest(path, known) if parent not in known else None
