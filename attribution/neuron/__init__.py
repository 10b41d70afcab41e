"""The neuron lens: which neurons carry a prediction; one method per file."""
