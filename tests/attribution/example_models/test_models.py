"""Models of the docstrings' examples: they are what the protocols ask for, and both lenses' identities hold on them."""

from __future__ import annotations

import torch

from twinlens.attribution.example_models import BUDGET, ExampleNeuronModel, ExampleResidualModel, example_batch
from twinlens.attribution.neuron.ig import IntegratedGradients
from twinlens.attribution.neuron.logprob_increase import layer_increases
from twinlens.attribution.neuron.path_integral import integrated_gradients
from twinlens.attribution.neuron.query import ValueNeurons, query_layers, query_neurons
from twinlens.attribution.neuron.readout import readout_of
from twinlens.attribution.protocols import Batch, NeuronModel
from twinlens.attribution.residual_protocol import ResidualModel


def padded() -> Batch:
    """The batch of the examples with two columns of padding behind the first text and before the second."""
    batch = example_batch()
    nothing = torch.zeros(1, 2, dtype=torch.int64)
    return {
        **batch,
        **{
            name: torch.cat(
                [torch.cat([batch[name][:1], nothing], 1), torch.cat([nothing, batch[name][1:]], 1)],
            )
            for name in ("input_ids", "attention_mask")
        },
    }


def test_models_satisfy_the_protocols() -> None:
    assert isinstance(ExampleNeuronModel(), NeuronModel)
    assert isinstance(ExampleResidualModel(), ResidualModel)


def test_padding_changes_nothing() -> None:
    for model in (ExampleNeuronModel(), ExampleResidualModel()):
        torch.testing.assert_close(model.states(padded()).scores, model.states(example_batch()).scores)


def test_integrated_gradients_are_complete_on_every_path() -> None:
    model = ExampleNeuronModel(n_classes=3)
    for batch in (example_batch(), padded()):
        for preset in ("gauss", "eleuther"):
            for positions in ("last", "all"):
                path = IntegratedGradients(preset, positions=positions).path(model)  # type: ignore[arg-type]
                steps = 16 if preset == "gauss" else 4000
                found = integrated_gradients(model, batch, path, steps, BUDGET)
                assert found.completeness.max() < 1e-3


def test_unedited_rows_give_the_model_s_own_scores() -> None:
    model, batch = ExampleNeuronModel(), padded()
    states = model.states(batch)
    rows = [states.residual[:, layer, None] for layer in range(model.n_layers + 1)]
    torch.testing.assert_close(model.score_rows(states, rows), states.scores[:, None].expand(-1, 3, -1))


def test_edits_at_the_answer_position_are_rows_edited_by_hand() -> None:
    model, batch = ExampleNeuronModel(), padded()
    states = model.states(batch)

    def without_last_layer(layer: int, activation: torch.Tensor) -> torch.Tensor:
        return activation * (layer < model.n_layers - 1)

    rows = [None, None, (states.residual[:, -1] - states.mlp_output[:, -1])[:, None]]
    edited = model.score_edits(states, without_last_layer, 1)
    torch.testing.assert_close(edited, model.score_rows(states, rows))


def test_layers_increases_add_up() -> None:
    model, batch = ExampleResidualModel(), padded()
    states = model.states(batch)
    readout = readout_of(model, states, batch["labels"])
    attention, mlp = layer_increases(states, readout, BUDGET)
    ends = readout.log_prob(states.residual[:, [0, -1]])
    torch.testing.assert_close((attention + mlp).sum(1), ends[:, 1] - ends[:, 0])
    torch.testing.assert_close(ends[:, 1], states.scores.log_softmax(-1)[torch.arange(2), batch["labels"]])


def test_shares_of_value_neurons_add_up() -> None:
    """Without norms and biases in the blocks a key's products sum to its pre-activation, for either site."""
    model, batch = ExampleResidualModel(), padded()
    states = model.states(batch)
    for site, n_units in (("ffn", model.n_neurons), ("attn", model.n_heads * model.head_dim)):
        neurons = ValueNeurons(
            site,
            torch.ones(2, n_units, dtype=torch.int64),
            torch.arange(n_units).expand(2, -1),
            states.position[:, None].expand(-1, n_units),
            torch.ones(2, n_units),
        )
        shares = query_layers(model, batch, neurons, BUDGET, "notebook")
        total = shares.embedding + shares.attention.sum(1) + shares.mlp.sum(1)
        torch.testing.assert_close(total, torch.full((2,), float(n_units)))
        by_neuron = query_neurons(model, batch, neurons, BUDGET, "notebook").sum(2)
        torch.testing.assert_close(by_neuron, shares.mlp)


def test_zeroed_units_and_gradients() -> None:
    model, batch = ExampleResidualModel(), padded()
    states = model.states(batch)
    torch.testing.assert_close(model.zeroed_scores(batch, None, None), states.scores)
    nothing_left = torch.ones(2, model.n_layers, model.n_neurons, dtype=torch.bool)
    no_heads = torch.ones(2, model.n_layers, model.n_heads * model.head_dim, dtype=torch.bool)
    bare = model.decoder.scores(states.residual[:, 0])
    torch.testing.assert_close(model.zeroed_scores(batch, nothing_left, no_heads), bare)
    cotangent = torch.eye(states.scores.shape[1])[batch["labels"]] - states.scores.softmax(-1)
    gradient = model.mlp_gradient(batch, cotangent)
    step = 1e-3
    moved = states.residual[:, -1] + step * gradient[:, -1]
    log_probs = torch.stack([model.decoder.scores(h).log_softmax(-1) for h in (states.residual[:, -1], moved)], 1)
    change = log_probs[torch.arange(2), :, batch["labels"]].diff(dim=1)[:, 0]
    torch.testing.assert_close(change, step * gradient[:, -1].square().sum(1), rtol=5e-2, atol=1e-5)
