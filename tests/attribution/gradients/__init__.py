"""Gradients of linear layers."""
