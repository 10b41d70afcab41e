"""Tiny models and inputs for the examples in docstrings; begin with `neuron_model.py` and `residual_model.py`.

They satisfy the protocols of both neuron engines with the least code, so that they also show what a model of your own
has to offer. They recompute everything in full; `twinlens.models` has the fast engines.
"""

from twinlens.attribution.example_models.decoder import Block, ExampleDecoder
from twinlens.attribution.example_models.inputs import BUDGET, example_batch, example_head_inputs
from twinlens.attribution.example_models.neuron_model import ExampleNeuronModel
from twinlens.attribution.example_models.residual_model import ExampleResidualModel
from twinlens.attribution.example_models.sentences import example_sentences

__all__ = [
    "BUDGET",
    "Block",
    "ExampleDecoder",
    "ExampleNeuronModel",
    "ExampleResidualModel",
    "example_batch",
    "example_head_inputs",
    "example_sentences",
]
