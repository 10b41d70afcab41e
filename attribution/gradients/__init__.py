"""Gradients of any linear layers of a model, per example, and the computations over them."""
