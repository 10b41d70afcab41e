"""Contents of a run, so that each evaluation can say what it lacks before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twinlens.attribution.method import MethodKind

EXAMPLES_OF_KIND = {
    "instance": "instance method (e.g. method=gradsim)",
    "neuron": "neuron method (e.g. method=ig)",
    "ia_neurons": "method that leads from instances to neurons (e.g. method=gradsim_neurons)",
}


@dataclass(frozen=True)
class Available:
    """Contents of a run, for its evaluations to check.

    Attributes:
        instance, neuron, ia_neurons: names of the run's methods by kind.
        with_seeds: those among them that draw random numbers.
        columns: text and plant columns that the train split and the explained split both have.
        pairs: whether the data name two text columns as a pair (premise, hypothesis).
        twins: explained examples with a planted near-duplicate.
        fits: whether the run fits its model, so that it can be fitted again on other rows.
        groups: groups of explained examples that are asked together.
        units: names of the run's methods that list train rows for units.

    Example:
        >>> from twinlens.attribution.evaluation.needs import Available, missing_methods
        >>> available = Available(instance=("gradsim", "random_instances"), with_seeds=frozenset({"random_instances"}))
        >>> available.ranked()
        ('gradsim',)
        >>> missing_methods(available, "neuron")
        'at least one neuron method (e.g. method=ig)'
    """

    instance: tuple[str, ...] = ()
    neuron: tuple[str, ...] = ()
    ia_neurons: tuple[str, ...] = ()
    with_seeds: frozenset[str] = frozenset()
    columns: frozenset[str] = frozenset()
    pairs: bool = False
    twins: int = 0
    fits: bool = False
    groups: int = 0
    units: tuple[str, ...] = ()

    def of_kind(self, kind: MethodKind) -> tuple[str, ...]:
        """Names of the methods of one kind."""
        return getattr(self, kind)

    def ranked(self) -> tuple[str, ...]:
        """Instance methods that are compared with random subsets, themselves without random numbers."""
        return tuple(name for name in self.instance if name not in self.with_seeds)


def missing_methods(available: Available, kind: MethodKind) -> str:
    """Name the method to add where the run has none of a kind, empty where it has one.

    Methods that lead from instances to neurons count as neuron methods too.
    """
    if kind == "neuron" and available.ia_neurons:
        return ""
    return "" if available.of_kind(kind) else f"at least one {EXAMPLES_OF_KIND[kind]}"


def missing_rankings(available: Available) -> str:
    """Name the method to add where no instance method of the run ranks without random numbers, else empty."""
    return "" if available.ranked() else "at least one instance method without seeds (e.g. method=gradsim)"


def missing_fit(available: Available) -> str:
    """Say that the model has to be trained here where it is not, else empty."""
    return (
        "" if available.fits else "a model that this run trains (fit=true): a trained classifier's recipe is not known"
    )


def what_is_missing(evaluation: Any, available: Available) -> str:
    """Name what an evaluation needs and the run lacks, empty where nothing is missing.

    An evaluation with a method `missing(available)` says it; any other needs a method where `requires` is a kind.
    """
    if hasattr(evaluation, "missing"):
        return evaluation.missing(available)
    return missing_methods(available, evaluation.requires) if evaluation.requires in EXAMPLES_OF_KIND else ""
