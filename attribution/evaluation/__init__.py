"""Tests of explanations: one test per file, pure functions on tensors."""
