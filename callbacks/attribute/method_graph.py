"""Order of a run's methods: bridges read the scores of others, so these come first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from twinlens.attribution.bridge.instance_neurons import InstanceNeurons
from twinlens.attribution.bridge.neuron_instances import NeuronInstances
from twinlens.attribution.errors import UserError
from twinlens.attribution.neuron.protocol import NeuronMethod, unit_kind

Kind = Literal["instance", "neuron"]


def kind_of(method: Any) -> Kind:
    """What a method's scores are about."""
    return "neuron" if isinstance(method, NeuronMethod | InstanceNeurons) else "instance"


def names_neurons(method: Any) -> bool:
    """Whether a method's scores are of neurons, which can be edited and compared, and not of heads or layers."""
    return kind_of(method) == "neuron" and unit_kind(method) == "neuron"


def reads_of(method: Any) -> str:
    """What an instance method is given: head (where it says nothing), checkpoints, text or neurons."""
    return getattr(method, "reads", "head")


def sources_of(method: Any) -> dict[str, str]:
    """The methods of the run that a method needs, by the setting that names them."""
    if isinstance(method, NeuronInstances):
        return {"source": method.source}
    if isinstance(method, InstanceNeurons):
        return {"source": method.source, "neurons": method.neurons}
    return {f"sources[{position}]": name for position, name in enumerate(getattr(method, "sources", ()))}


def train_lists_of(method: Any) -> tuple[str, ...]:
    """The neuron methods whose lists of the train split a method reads."""
    if isinstance(method, NeuronInstances):
        return (method.source,)
    return (method.neurons,) if isinstance(method, InstanceNeurons) else ()


def in_order(methods: Mapping[str, Any]) -> list[str]:
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
            for source in sources_of(methods[name]).values():
                visit(source, (*path, name))
            ordered.append(name)

    for name in methods:
        visit(name, ())
    return ordered


def require_sources(methods: Mapping[str, Any]) -> None:
    """Refuse methods whose sources are not in the run, of the wrong kind, too short, or in a circle.

    Raises:
        UserError: naming the setting.
    """
    for name, method in methods.items():
        for key, source in sources_of(method).items():
            if source not in methods:
                present = ",".join(methods)
                raise UserError(
                    f"method.{name}.{key}={source} is no method of the run (method=[{present}]); expected one that "
                    f"runs with it: say method=[{source},{present}] or name another."
                )
            _require_kind(name, key, method, source, methods[source])
    in_order(methods)
    for name, method in methods.items():
        _require_long_sources(name, method, methods)


def _require_kind(name: str, key: str, method: Any, source: str, given: Any) -> None:
    """A bridge starts from an attribution of the model's own, drawn once."""
    if not isinstance(method, NeuronInstances | InstanceNeurons):
        return
    wanted: Kind = "instance" if isinstance(method, InstanceNeurons) and key == "source" else "neuron"
    example = "gradsim" if wanted == "instance" else "ig"
    if kind_of(given) != wanted:
        raise UserError(
            f"method.{name}.{key}={source} is {_a(kind_of(given))} method, expected {_a(wanted)} method: name one, "
            f"such as {example}."
        )
    if wanted == "neuron" and not names_neurons(given):
        raise UserError(
            f"method.{name}.{key}={source} scores {unit_kind(given)}s, expected a method that scores neurons: name "
            f"one, such as {example}."
        )
    if isinstance(given, InstanceNeurons):
        raise UserError(
            f"method.{name}.{key}={source} takes its neurons from instances itself, so that it has none of a train "
            f"instance; expected a neuron method that reads the model: name one, such as {example}."
        )
    if hasattr(given, "seeds"):
        raise UserError(
            f"method.{name}.{key}={source} draws its scores anew for every seed; expected a method with one result: "
            f"name one, such as {example}."
        )


def _require_long_sources(name: str, method: Any, methods: Mapping[str, Any]) -> None:
    """Lists that a bridge reads must be as long as it asks for."""
    asked: list[tuple[str, int, str]] = []
    if isinstance(method, NeuronInstances):
        asked = [(key, getattr(method, key), method.source) for key in ("train_list", "test_list")]
    if isinstance(method, InstanceNeurons):
        asked = [("top_k", method.top_k, method.source)]
    for key, length, source in asked:
        if methods[source].top_k < length:
            raise UserError(
                f"method.{name}.{key}={length} reads lists of that length, but method.{source}.top_k="
                f"{methods[source].top_k}; expected at least {length}: raise it or lower method.{name}.{key}."
            )


def _a(kind: Kind) -> str:
    return "an instance" if kind == "instance" else "a neuron"
