"""Units that cannot be asked about, and what cannot be turned round or taken away."""

from __future__ import annotations

from tests.bad_input_files import Entry
from tests.running import SMALL_DEMO

BRIDGE = "method=[ig,data_of_neurons]"
NAMED = ("method=data_of_neurons", "method.data_of_neurons.of=null")
UNITS: list[Entry] = [
    (
        "a unit that the model does not have",
        (*NAMED, "method.data_of_neurons.units=[[ffn,3,17],[head,4,0]]", *SMALL_DEMO),
        ("unit 0 of kind head in layer 4", "has 4 layers with 4 such units each"),
    ),
    (
        "a unit of a kind that there is not",
        (*NAMED, "method.data_of_neurons.units=[[mlp,3,17]]"),
        ("a kind of ffn, attn, head", "write [[ffn,3,17]]"),
    ),
    (
        "more units than the budget",
        (BRIDGE, "method.data_of_neurons.max_units=50", *SMALL_DEMO),
        ("5 units of each of 12 predictions, 60 in all", "max_units=50"),
    ),
    (
        "units by name and by a list",
        (BRIDGE, "method.data_of_neurons.units=[[ffn,3,17]]"),
        ("expected one of the two", "of=null"),
    ),
    (
        "the units of layers",
        ("method=[layers,data_of_neurons]", "method.data_of_neurons.of=layers"),
        ("scores layers", "neurons or heads"),
    ),
    (
        "the units of several sequences",
        (BRIDGE, "data=demo_choice", *SMALL_DEMO),
        ("the one sequence that a prediction reads", "leave data_of_neurons out"),
    ),
    (
        "a curvature of units that is not built layer by layer",
        (BRIDGE, "method.data_of_neurons.curvature=ggn"),
        ("curvature='ggn'", "'ekfac' or 'kfac' or 'identity'"),
    ),
    (
        "units of something that has none, turned round",
        ("method=[gradsim,neurons_of_data]", "method.neurons_of_data.of=gradsim"),
        ("no units of predictions to turn round", "method=[data_of_neurons,neurons_of_data]"),
    ),
    (
        "a unit that is named twice",
        (*NAMED, "method.data_of_neurons.units=[[ffn,0,1],[ffn,0,1]]"),
        ("['ffn', 0, 1] twice", "leave one out"),
    ),
    (
        "units that act before the answer token",
        ("method=[query_neurons,data_of_neurons]", "method.data_of_neurons.of=query_neurons"),
        ("scores query neurons", "name a method that scores values"),
    ),
    (
        "data of neurons by gradients of the head alone",
        (BRIDGE, "method.data_of_neurons.params=head"),
        ("params=head of data_of_neurons", "use params=all"),
    ),
    (
        "a unit retrained without every row",
        ("method=[ig,data_of_neurons,gradsim]", "evaluation=unit_retraining",
         "evaluation.unit_retraining.beside=gradsim", "evaluation.unit_retraining.percent=99.9", *SMALL_DEMO),
        ("99.9 % of 48 train rows", "lower percent"),
    ),
    (
        "a unit retrained with one seed twice",
        ("method=[ig,data_of_neurons,gradsim]", "evaluation=unit_retraining",
         "evaluation.unit_retraining.beside=gradsim", "evaluation.unit_retraining.seeds=[0,0]", *SMALL_DEMO),
        ("evaluation.unit_retraining.seeds=[0, 0]", "the seed 0 twice"),
    ),
    (
        "a unit retrained without all of the data",
        ("evaluation=unit_retraining", "evaluation.unit_retraining.percent=100"),
        ("percent=100", "write percent=10 units=20"),
    ),
    (
        "units whose lists are shorter than what is taken away",
        ("method=[ig,data_of_neurons,gradsim]", "evaluation=unit_retraining",
         "evaluation.unit_retraining.beside=gradsim", "method.data_of_neurons.top_k=4", *SMALL_DEMO),
        ("the first 10 % of 48 train rows away, 5 rows", "raise method.data_of_neurons.top_k"),
    ),
    (
        "units retrained beside a method that the run does not have",
        (BRIDGE, "evaluation=unit_retraining"),
        ("beside=influence_ekfac is no instance method of the run", "write null"),
    ),
]  # fmt: skip
