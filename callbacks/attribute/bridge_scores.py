"""IA-Neurons: neuron scores composed of stored instance lists and the train split's stored neuron lists; no pass."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from twinlens.attribution.neuron.ranking import at_sites
from twinlens.callbacks.attribute.explained_outputs import explained_inputs, explained_words
from twinlens.callbacks.attribute.neuron_scores import neuron_disk, tensors_of, write_neuron_scores
from twinlens.callbacks.attribute.reads import PassCost, Planned, Reads
from twinlens.callbacks.attribute.score_files import read_best_instances, read_neuron_lists, write_description
from twinlens.callbacks.store.store import Finish


class InstanceListReads(Reads):
    """Lists of an instance method and the train split's lists of a neuron method, of which scores are composed."""

    def inputs(self, split: str) -> dict[str, Any]:
        """Both methods' stored scores, and what the split is predicted as."""
        session = self.session
        return {
            "instances": session.scores[self.method.source, split].name,
            "neurons": session.scores[self.method.neurons, "train"].name,
            "examples": session.predictions[split].fingerprint,
            "split": split,
            **explained_inputs(session, self.method),
        }

    def build(self, split: str, folder: Path) -> Finish:
        """Compose a split's scores and write `<split>/` and `method.yaml`, all in the first process."""
        return lambda: self._compose(split, folder)

    def _compose(self, split: str, folder: Path) -> None:
        session, method, footprint = self.session, self.method, self.session.footprint
        shape = footprint.n_layers, footprint.n_neurons, footprint.query_width
        # the top-1 neuron of each train instance is all that is asked for
        train = read_neuron_lists(session.scores[method.neurons, "train"] / "train", 1, *shape)
        # without duplicates, neurons further down replace those that stand twice
        length = self.methods[method.source].top_k if method.dedup else method.top_k
        top_index, top_score = read_best_instances(session.scores[method.source, split] / split, length)
        scores = at_sites(method.compose(top_index, top_score, train), footprint.n_neurons)
        rows = {"index": torch.arange(len(top_index)), **tensors_of(scores)}
        write_neuron_scores(session, folder, split, rows, method)
        write_description(folder, self.name, method, {**method.describe(), **explained_words(session, method)})

    def cost(self, plan: Planned, split: str) -> PassCost:
        """Both lists; there is no pass."""
        n_train, n_test = len(plan.lengths["train"]), len(plan.lengths[split])
        memory = 12 * n_train + 24 * n_test * self.methods[self.method.source].top_k
        disk = neuron_disk(self.method.top_k, plan.shape.footprint.n_layers, n_test)
        return PassCost(0.0, disk, memory, on_host=True, remark="no pass")
