"""Scores over stored rows of projected gradients: the rows of both splits, and those of the method's curvature."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from twinlens.attribution.gradients.projected import RowScorer
from twinlens.attribution.gradients.rows import GradientRows
from twinlens.attribution.instance.over_layers import OverLayers
from twinlens.callbacks.attribute.instance_scores import Side, Streamed
from twinlens.callbacks.attribute.reads import PassCost, Planned
from twinlens.callbacks.attribute.stored_gradient_costs import rows_cost
from twinlens.callbacks.attribute.stored_gradient_pass import Wanted
from twinlens.callbacks.attribute.stored_gradients import gradient_inputs, refuse, stored_rows
from twinlens.callbacks.attribute.token_rows import TokenRows, token_rows
from twinlens.callbacks.attribute.whole_gradient_inputs import covered_by, layers_of, require_layers
from twinlens.callbacks.passes.shards import rows_per_shard
from twinlens.callbacks.store.fingerprints import fingerprint_of


class RowReads(Streamed):
    """Rows of projected gradients, stored once for all methods of their kind: `GradientRows`."""

    covers_layers = True
    serves_groups = True
    counts_room = True

    @classmethod
    def refuse(cls, method: OverLayers, architecture: Callable[[], Any]) -> None:
        """See `require_layers`."""
        require_layers(method, architecture)

    def load(self, split: str, side: Side) -> GradientRows:
        """The split's; those of the train split with the rows that the method's curvature is made of."""
        rows, *fisher = [stored_rows(self.session, wanted) for wanted in self._wanted(split, side)]
        return replace(rows, fisher=fisher[0]) if fisher else rows

    def identify(self, split: str, side: Side) -> dict[str, Any]:
        """What all these rows depend on."""
        wanted = self._wanted(split, side)
        return {"gradients": [fingerprint_of(gradient_inputs(self.session, one)) for one in wanted]}

    def tokens(self) -> TokenRows | None:
        """The tokens of the train split, where each has a row."""
        return token_rows(self.session) if self.method.per == "token" else None

    def shares(self, scorer: RowScorer, test: GradientRows, lists: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """With `per=module` the part of each layer in every listed score, in the order of `modules` in method.yaml."""
        if self.method.per != "module":
            return {}
        found = {}
        each = 8 * test.layout.n_numbers * max(1, lists["top_index"].shape[1])
        step = max(1, self.session.memory_budget // each)
        for end in ("top", "bottom"):
            index, parts = lists[f"{end}_index"], []
            for start in range(0, len(index), step):
                some = torch.arange(start, min(start + step, len(index)))
                query = scorer.query(test.rows(start, start + len(some)), some)
                parts.append(scorer.shares(query, index[some].long()))
            found[f"{end}_module"] = torch.cat(parts)
        return found

    def covered(self) -> dict[str, Any]:
        """Parameters of the layers whose gradients are stored, and these layers where scores are shared out."""
        covered = covered_by(self.session, self.method.params)
        if self.method.per != "module":
            return covered
        return {**covered, "modules": [layer.name for layer in layers_of(self.session, self.method.params)]}

    def cost(self, plan: Planned, split: str) -> PassCost:
        """Passes that store gradients, of long documents a few windows at a time, then products on the host."""
        session, times, test = self.session, plan.times, plan.lengths[split]
        for wanted in self._wanted("train", "train"):
            refuse(session, wanted)
        classes, tests = len(session.data.label_names), rows_per_shard(len(test))
        budget = session.memory_budget
        read, window = session.sequences.read, session.window("train")
        cost = rows_cost(self.method, plan.shape, plan.lengths["train"], test, classes, tests, budget, read, window)
        seconds = times.rows(self.name, self.method, 1, read * cost.gradient_operations)
        seconds += cost.host_operations / times.host
        if cost.fisher_operations:
            seconds += times.rows(self.name, self.method, cost.rank, read * cost.fisher_operations)
        memory = max(cost.memory, plan.pass_memory("train", cost.need))
        return PassCost(seconds, cost.disk, memory, on_host=True, remark=cost.remark)

    def _wanted(self, split: str, side: Side) -> list[Wanted]:
        """The method's rows of a split, then those of its curvature where they are others."""
        options, losses = self.method.gradients, self.method.curvature_losses
        if side == "test":
            return [Wanted(options, split, explained=True)]
        wanted = [Wanted(options, split)]
        if losses is None:
            return wanted
        if losses == "expectation":
            return [*wanted, Wanted(options, split, losses)]
        return [*wanted, Wanted(replace(options, per="example"), split)] if options.per == "token" else wanted
