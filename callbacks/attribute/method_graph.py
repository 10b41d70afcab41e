"""Order of a run's methods: bridges read the scores of others, so these come first."""

from __future__ import annotations

from collections.abc import Mapping

from twinlens.attribution.errors import UserError
from twinlens.attribution.method import Lens, Method, Source, TextPositions

Methods = Mapping[str, Method]


def train_lists_of(method: Method) -> list[str]:
    """The neuron methods whose lists of the train split a method reads."""
    return [source.name for source in method.sources if source.of_train]


def positions_in_texts(methods: Methods, name: str) -> TextPositions:
    """Where the bridges of a run ask a neuron method's scores of train texts to be."""
    asked = (source for method in methods.values() for source in method.sources if source.of_train)
    return next((source.positions for source in asked if source.name == name), "all")


def entries_in_texts(methods: Methods, name: str) -> int:
    """Entries that the bridges of a run read of each token's list in a train text."""
    asked = (source for method in methods.values() for source in method.sources if source.of_train)
    return max((source.lengths.get("train_list", 1) for source in asked if source.name == name), default=1)


def in_order(methods: Methods) -> list[str]:
    """Names of the methods, each after those it needs, else in the order of the configuration.

    Raises:
        UserError: methods that need each other in a circle.
    """
    ordered: list[str] = []

    def visit(name: str, path: tuple[str, ...]) -> None:
        if name in path:
            circle = " → ".join([*path[path.index(name) :], name])
            raise UserError(
                f"method.{name} needs itself ({circle}); expected sources that can run first: change one of them."
            )
        if name not in ordered:
            for source in methods[name].sources:
                visit(source.name, (*path, name))
            ordered.append(name)

    for name in methods:
        visit(name, ())
    return ordered


def require_sources(methods: Methods) -> None:
    """Refuse methods whose sources are not in the run, of the wrong kind, too short, or in a circle.

    Raises:
        UserError: naming the setting.
    """
    for name, method in methods.items():
        for source in method.sources:
            if source.name not in methods:
                present = ",".join(methods)
                raise UserError(
                    f"method.{name}.{source.setting}={source.name} is no method of the run (method=[{present}]); "
                    f"expected one that runs with it: say method=[{source.name},{present}] or name another."
                )
            if source.lens is not None:
                _require_lens(name, source, source.lens, methods[source.name])
    in_order(methods)
    _require_one_reading(methods)
    for name, method in methods.items():
        for source in method.sources:
            _require_length(name, source, methods[source.name])


def _require_one_reading(methods: Methods) -> None:
    """Bridges that read one method's train lists read the same ones."""
    first: dict[str, tuple[str, str]] = {}
    for name, method in methods.items():
        for source in method.sources:
            if not source.of_train:
                continue
            other, positions = first.setdefault(source.name, (name, source.positions))
            if positions != source.positions:
                raise UserError(
                    f"method.{name}.positions={source.positions} and method.{other}.positions={positions} read the "
                    f"train lists of {source.name} at other tokens; expected one reading in a run: set both the same, "
                    "or run them apart."
                )


def _require_lens(name: str, source: Source, wanted: Lens, given: Method) -> None:
    """A bridge starts from an attribution of the model's own, drawn once."""
    asked, example = f"method.{name}.{source.setting}={source.name}", "gradsim" if wanted == "instance" else "ig"
    if given.lens != wanted:
        raise UserError(
            f"{asked} is {_a(given.lens)} method, expected {_a(wanted)} method: name one, such as {example}."
        )
    if wanted == "neuron" and not (given.names_neurons or (source.heads and given.unit_kind == "head")):
        also = " or heads" if source.heads else ""
        raise UserError(
            f"{asked} scores {given.unit_kind}s, expected a method that scores neurons{also}: name one, such as "
            f"{example}."
        )
    if source.acting and getattr(given, "role", "value") == "query":
        raise UserError(
            f"{asked} scores query neurons, which act on earlier tokens than the one that a unit is taken away at; "
            f"expected units that act at the answer token: name a method that scores values, such as {example}."
        )
    if given.kind == "ia_neurons":
        raise UserError(
            f"{asked} takes its neurons from instances itself, so that it has none of a train instance; expected a "
            f"neuron method that reads the model: name one, such as {example}."
        )
    if given.draws:
        raise UserError(
            f"{asked} draws its scores anew for every seed; expected a method with one result: name one, such as "
            f"{example}."
        )


def _require_length(name: str, source: Source, given: Method) -> None:
    """Lists that a bridge reads must be as long as it asks for."""
    for setting, length in source.lengths.items():
        if given.top_k < length:
            raise UserError(
                f"method.{name}.{setting}={length} reads lists of that length, but method.{source.name}.top_k="
                f"{given.top_k}; expected at least {length}: raise it or lower method.{name}.{setting}."
            )


def _a(lens: Lens) -> str:
    return "an instance" if lens == "instance" else "a neuron"
