"""Time of counted operations: at the rate of their own kind of work, or at that of a matrix product."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twinlens.callbacks.attribute.whole_gradient_costs import WholeWork
from twinlens.callbacks.plan.probe import Probe, TrainingRates


class Times:
    """Seconds of each kind of work. What a plan does not ask for is not measured, and nothing is measured twice.

    Args:
        product: operations per second of a matrix product in the run's type on the passes' device.
        host: the same in float64 on the host.
        probe: times the passes themselves; None: all work is done at the rate of a product.
        writing: seconds per byte of a file of a given size.
    """

    def __init__(
        self, product: float, host: float, probe: Probe | None, writing: Callable[[int], float] = lambda size: 0.0
    ) -> None:
        self.product = product
        self.host = host
        self.probe = probe
        self.writing = writing
        self._measured: dict[Any, Any] = {}

    def forward(self, operations: float) -> float:
        """Of predictions."""
        return operations / self._rate("forward", lambda probe: probe.forward())

    def fit(self, operations: float, n_steps: int, n_parameters: int, n_embedding: int) -> float:
        """Of a fit, three forwards per example and an optimiser's steps.

        Args:
            n_steps: of the optimiser.
            n_parameters: that are trained.
            n_embedding: numbers of the embedding among them, whose gradient every step fills.
        """
        if self.probe is None:
            return operations / self.product
        rates: TrainingRates = self._of("fit", lambda probe: probe.training())
        step = n_parameters * rates.step + n_embedding * rates.embedding
        return operations / rates.operations + n_steps * step

    def written(self, n_bytes: float, size: int) -> float:
        """Of checkpoints and models on the disk, the largest of which has `size` bytes."""
        return n_bytes * float(self._of("written", lambda _: self.writing(size)))

    def neurons(self, name: str, method: Any, operations: float) -> float:
        """Of a neuron method's pass."""
        return operations / self._rate(("neurons", name), lambda probe: probe.neurons(method))

    def edits(self, name: str, evaluation: Any, lists: Sequence[str], sites: Mapping[str, str], count: float) -> float:
        """Of `count` operations of edited forwards about neuron lists.

        Args:
            lists: their names, controls among them.
            sites: of each list that ranks others than FFN neurons.
        """
        return count / self._rate(("edits", name), lambda probe: probe.edits(evaluation, lists, sites))

    def rows(self, name: str, method: Any, rank: int, operations: float) -> float:
        """Of a pass that stores `rank` gradients of each example."""
        return operations / self._rate(("rows", name, rank), lambda probe: probe.rows(method, rank))

    def whole(self, name: str, method: Any, n_classes: int, work: WholeWork) -> float:
        """Of the passes over whole gradients."""
        if self.probe is None:
            return work.seconds(WholeWork(*[self.product] * 5))
        rates = self._of(("whole", name), lambda probe: probe.whole(method, n_classes))
        return work.seconds(WholeWork(rates.covariances, rates.eigenvalues, rates.scoring, self.product, self.host))

    def _rate(self, kind: Any, measure: Any) -> float:
        return self.product if self.probe is None else float(self._of(kind, measure))

    def _of(self, kind: Any, measure: Any) -> Any:
        if kind not in self._measured:
            self._measured[kind] = measure(self.probe)
        return self._measured[kind]
