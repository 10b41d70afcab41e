"""Bridges between the two lenses: instances from neuron lists, and neurons from instances."""
