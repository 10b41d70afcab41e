"""Method of either lens: all that a configured one says of itself, each with the default of an ordinary method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeVar

Lens = Literal["instance", "neuron"]
"""What scores are about."""
UnitKind = Literal["neuron", "head", "layer"]
Role = Literal["value", "query"]
MethodKind = Literal["instance", "neuron", "ia_neurons"]
"""Kinds that evaluations tell apart; `ia_neurons` lead from instances to neurons."""
TextPositions = Literal["all", "last"]
"""Where neurons of a train text are scored that has a loss at every token: at each of these, or at its last alone."""
NO_SEED: tuple[int | None, ...] = (None,)
"""Seeds of a method that draws nothing: it has one result, and no folder for each seed."""

Self = TypeVar("Self", bound="Method")


@dataclass(frozen=True)
class Source:
    """Another method of the run whose results a method reads; it runs first.

    Attributes:
        setting: that names it.
        name: of the other method.
        lens: what its scores have to be about; None: either.
        of_train: whether its lists of the train split are read as well.
        lengths: settings that read its lists → how many entries.
        positions: where the neurons of train texts are scored; rows of classes and choices have one answer token.
        heads: whether a method that scores heads serves where neurons are asked for.
        acting: whether its units have to act at the answer token, as values do and queries before it do not.

    Example:
        >>> from twinlens.attribution.bridge.neuron_instances import NeuronInstances
        >>> source = NeuronInstances(source="ig", preset="reference").sources[0]
        >>> source.name, source.of_train, source.lengths, source.positions
        ('ig', True, {'train_list': 100, 'test_list': 5}, 'all')
    """

    setting: str
    name: str
    lens: Lens | None = None
    of_train: bool = False
    lengths: Mapping[str, int] = field(default_factory=dict)
    positions: TextPositions = "all"
    heads: bool = False
    acting: bool = False


class Method:
    """A configured method; `InstanceMethod` and `NeuronMethod` are the two to extend.

    Attributes:
        lens: what its scores are about.
        unit_kind: what its entries stand for.
        is_control: whether it is what others are compared with and not a method to be read: results, figures and
            reports set it apart.
        papers: where it comes from, as keys of `callbacks/share/references.bib`; `KEY if SETTING=VALUE|VALUE` cites for
            some values of a setting alone, and conditions may be joined by `and`.
        top_k: length of its lists.
        seeds: of a method that draws random numbers, which is run once for each; `NO_SEED`: it draws none.
        explains: the lens whose target its scores speak of (`twinlens.attribution.targets`); None: they speak of none,
            so that they are the same whatever the run explains.

    Example:
        >>> from twinlens.attribution.instance.gradsim import GradientSimilarity
        >>> from twinlens.attribution.method import Method
        >>> from twinlens.attribution.neuron.random_neurons import RandomNeurons
        >>> methods: list[Method] = [GradientSimilarity(), RandomNeurons(seeds=[0, 1])]
        >>> [(method.lens, method.kind, method.is_control, method.draws) for method in methods]
        [('instance', 'instance', False, False), ('neuron', 'neuron', True, True)]
        >>> methods[1].for_seed(1).seeds
        [1]
    """

    lens: ClassVar[Lens]
    unit_kind: ClassVar[UnitKind | Literal["instance"]] = "instance"
    is_control: ClassVar[bool] = False
    papers: ClassVar[tuple[str, ...]] = ()
    explains: Lens | None = None

    top_k: int
    seeds: Sequence[int | None] = NO_SEED

    @property
    def reads(self) -> str:
        """The form in which a split comes to it, a word that `twinlens.callbacks.attribute.dispatch` knows."""
        raise NotImplementedError

    @property
    def sign(self) -> str:
        """What a high score says; empty: the method does not tell."""
        return ""

    @property
    def unit(self) -> str:
        """Unit of the scores; empty: the method does not tell."""
        return ""

    @property
    def sets_apart(self) -> bool:
        """Whether it can explain how much likelier one output is than another."""
        return True

    @property
    def adds_up(self) -> bool:
        """Whether scores of the tokens of a completion can be added up, so that it can explain one."""
        return False

    @property
    def kind(self) -> MethodKind | None:
        """What evaluations take it for; None: for nothing that they compare."""
        return None

    @property
    def names_neurons(self) -> bool:
        """Whether its scores are of neurons, which can be edited and compared, not of instances, heads or layers."""
        return False

    @property
    def draws(self) -> bool:
        """Whether it has a result for each of several seeds."""
        return list(self.seeds) != list(NO_SEED)

    def for_seed(self: Self, seed: int | None) -> Self:
        """The method of one of its seeds; itself where it draws nothing."""
        return self

    def among(self: Self, methods: Mapping[str, Any]) -> Self:
        """The method as the other methods of its run make it; itself, unless it says otherwise.

        Args:
            methods: all of the run by name, itself among them.
        """
        return self

    @property
    def choices(self) -> Mapping[str, str]:
        """What the run has chosen of the method's settings and how, for `method.yaml`."""
        return {}

    @property
    def sources(self) -> Sequence[Source]:
        """The methods of the run whose results it reads."""
        return ()
