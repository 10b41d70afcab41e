"""The causal bridge: which train examples built a unit's contribution to a prediction, and what an example built.

Influence on a unit's functional: the score of train example i for a unit of a prediction is −∇φᵀ(H + λI)⁻¹∇L_i with φ
of `twinlens.attribution.bridge.units` in the place of the test's log-probability. Positive: more training on i raises
what the unit contributes. Mechanistic Data Attribution (ICML 2026) asks this of attention heads; here it is any unit,
and `evaluation=unit_retraining` checks it by training again without the examples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self

from twinlens.attribution.bridge.neuron_lists import list_length
from twinlens.attribution.bridge.units import FUNCTIONAL, require_units, require_words
from twinlens.attribution.errors import UserError
from twinlens.attribution.gradients.fisher import Fisher
from twinlens.attribution.gradients.options import KRONECKER_PAPERS, LabelSource, Per
from twinlens.attribution.gradients.projection import ProjectionKind
from twinlens.attribution.gradients.row_forms import Storage
from twinlens.attribution.gradients.whole import Inverse
from twinlens.attribution.instance.layer_curvature import CurvedLayers
from twinlens.attribution.method import Method, Source
from twinlens.attribution.neuron.protocol import NeuronLens
from twinlens.attribution.protocols import LinearLayer

UnitCurvature = Literal["ekfac", "kfac", "identity"]


@dataclass(frozen=True)
class DataOfNeurons(CurvedLayers):
    """Train examples that built the best units of each prediction.

    Attributes:
        of: name of the method of the run whose lists give the units, of neurons or of heads; null with `units`.
        n_units: units of each prediction, the first of its list.
        units: units by name instead, [kind, layer, unit] with a kind of ffn, attn (neurons) or head; the same for every
            prediction.
        max_units: units of all predictions together at most, whose gradients are held block by block.
        curvature: `ekfac` or `kfac`, layer by layer, `identity`: none.
        damping: λ as a multiple of each layer's mean eigenvalue, above 0; absolute for `identity`.
        fisher, labels, params: as of `twinlens.attribution.instance.influence.Influence`, over whole layers; with the
            same settings the factors are those of `influence_ekfac`, stored once.
        top_k: length of the stored lists.
        built: units kept of each train example, for `NeuronsOfData`; the run sets it.

    Raises:
        UserError: units of no kind, both or neither of `of` and `units`, a damping that is no number above 0.

    Example:
        >>> from twinlens.attribution.bridge.data_of_neurons import DataOfNeurons
        >>> method = DataOfNeurons(of="ig", n_units=3)
        >>> method.reads, method.kind, method.pairs(n_tests=200), method.needs_factors
        ('units', None, 600, True)
        >>> DataOfNeurons(of=None, units=[["head", 1, 0]]).sources
        ()
    """

    papers: ClassVar[tuple[str, ...]] = (
        "koh2017influence",
        "grosse2023influence if curvature=ekfac",
        *KRONECKER_PAPERS,
    )
    explains = "neuron"  # the target that the units' lists speak of
    sign: ClassVar[str] = "positive: more training on the train example raises what the unit contributes to the target"
    unit: ClassVar[str] = "change of the contribution, nats, per unit of weight in the mean train loss"
    solver = "direct"
    projection: ClassVar[ProjectionKind] = "none"  # type: ignore[misc]
    projection_dim = 16
    projection_seed = 0
    storage: ClassVar[Storage] = "dense"  # type: ignore[misc]
    storage_rank = 3
    per: ClassVar[Per] = "example"  # type: ignore[misc]

    of: str | None = "ig"
    n_units: int = 5
    units: Sequence[Sequence[str | int]] | None = None
    max_units: int = 1000
    curvature: UnitCurvature = "ekfac"
    damping: float = 0.1
    fisher: Fisher = "expectation"
    params: str = "all"
    labels: LabelSource = "gold"
    top_k: int = 100
    built: int = 0

    def __post_init__(self) -> None:
        if (self.of is None) == (not self.units):
            raise UserError(
                f"data_of_neurons has of={self.of} and units={self.units}; expected one of the two: name a neuron "
                "method of the run in of, or write of=null units=[[ffn,3,17]]."
            )
        list_length("n_units", self.n_units)
        list_length("max_units", self.max_units)
        list_length("top_k", self.top_k)
        require_words("units", self.units or ())
        if self.curvature not in ("ekfac", "kfac", "identity"):
            raise UserError(
                f"curvature={self.curvature} of data_of_neurons; expected one that is built layer by layer: use "
                "curvature=ekfac, kfac or identity."
            )
        if isinstance(self.damping, str):
            raise UserError(
                f"damping={self.damping} of data_of_neurons; expected a number, since halves of the train split "
                "measure predictions, not units: write damping=0.1."
            )
        if self.gradients.of_head:
            raise UserError(
                f"params={self.params} of data_of_neurons is the head alone, which lies above all units; expected "
                "whole layers: use params=all, or patterns over the names of layers such as *.mlp.*."
            )
        self.check_damping()
        self.gradients.check()

    @property
    def reads(self) -> str:
        """Whole gradients of layers, those of units' functionals on the side of the tests."""
        return "units"

    @property
    def kind(self) -> None:
        """None: lists are of units, several for a test, so that evaluations of one list for a test do not take it."""
        return

    @property
    def adds_up(self) -> bool:
        """A unit is taken away at one token."""
        return False

    @property
    def sources(self) -> tuple[Source, ...]:
        """The method whose lists give the units, where units are not named."""
        if self.of is None:
            return ()
        return (Source("of", self.of, "neuron", lengths={"n_units": self.n_units}, heads=True, acting=True),)

    def pairs(self, n_tests: int) -> int:
        """Units of so many predictions at most."""
        return n_tests * (self.n_units if self.units is None else len(self.units))

    def require_tests(self, name: str, n_tests: int) -> None:
        """Refuse more units than the budget.

        Args:
            name: of the method.
            n_tests: predictions that are explained.

        Raises:
            UserError: with both numbers.
        """
        if self.pairs(n_tests) > self.max_units:
            each = self.n_units if self.units is None else len(self.units)
            raise UserError(
                f"method.{name} asks for {each} units of each of {n_tests} predictions, {self.pairs(n_tests)} in all, "
                f"but max_units={self.max_units}; expected at most as many: lower method.{name}.n_units or "
                f"data.limit.test, or raise method.{name}.max_units."
            )

    def require_model(self, n_layers: int, n_of_kind: dict[str, int], model: str) -> None:
        """Refuse named units that the model does not have, see `require_units`."""
        require_units("units", self.units or (), n_layers, n_of_kind, model)

    def among(self, methods: Mapping[str, Any]) -> Self:
        """The method with as many units of each train example as others of the run ask for."""
        own = [name for name, method in methods.items() if method is self]
        asked = [method.top_k for method in methods.values() if method.reads == "built" and method.of in own]
        return replace(self, built=max(asked, default=0))

    def describe_layers(self, layers: Sequence[LinearLayer], inverses: Sequence[Inverse]) -> dict[str, object]:
        """See `OverLayers.describe_layers`; with what is differentiated."""
        units = {"of": self.of, "n_units": self.n_units} if self.units is None else {"units": [*map(list, self.units)]}
        return {
            "method": "influence on units' contributions",
            "functional": FUNCTIONAL,
            **units,
            **super().describe_layers(layers, inverses),
        }


@dataclass(frozen=True)
class NeuronsOfData(NeuronLens):
    """Units that each train example built most: the scores of `DataOfNeurons` the other way round.

    Of a unit that several predictions name the highest score counts, and the list says which prediction that is.

    Attributes:
        of: name of the method of the run whose scores are turned round.
        top_k: length of the stored lists.

    Raises:
        UserError: a length below 1; `of` names another kind of method.

    Example:
        >>> from twinlens.attribution.bridge.data_of_neurons import DataOfNeurons, NeuronsOfData
        >>> methods = {"data_of_neurons": DataOfNeurons(), "neurons_of_data": NeuronsOfData(top_k=20)}
        >>> methods["data_of_neurons"].among(methods).built
        20
    """

    explains = None  # what the units were asked about was said where they were asked
    from_instances: ClassVar[bool] = True
    sign: ClassVar[str] = DataOfNeurons.sign
    unit: ClassVar[str] = DataOfNeurons.unit

    of: str = "data_of_neurons"
    top_k: int = 10

    def __post_init__(self) -> None:
        list_length("top_k", self.top_k)

    @property
    def reads(self) -> str:
        """Units kept of train examples."""
        return "built"

    @property
    def names_neurons(self) -> bool:
        """Its lists are of train examples, of which no evaluation edits neurons."""
        return False

    @property
    def kind(self) -> None:
        """None, likewise."""
        return

    @property
    def sources(self) -> tuple[Source, ...]:
        """The method that is turned round."""
        return (Source("of", self.of, "instance"),)

    def among(self, methods: Mapping[str, Any]) -> Self:
        """Itself.

        Raises:
            UserError: `of` names a method that scores no units.
        """
        given: Method | None = methods.get(self.of)
        if given is not None and given.reads != "units":
            own = next((name for name, method in methods.items() if method is self), "neurons_of_data")
            raise UserError(
                f"method.{own}.of={self.of} has no units of predictions to turn round; expected a method of the kind "
                f"of data_of_neurons: say method=[data_of_neurons,{own}] method.{own}.of=data_of_neurons."
            )
        return self

    def describe(self) -> dict[str, object]:
        """Settings, sign and unit."""
        return {"method": "units that train examples built", "functional": FUNCTIONAL, "of": self.of,
                "top_k": self.top_k, "sign": self.sign, "unit": self.unit}  # fmt: skip
