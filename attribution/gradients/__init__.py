"""Gradients of any linear layers of a model, per example, and what is computed from them."""
