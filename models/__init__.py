"""The language model with its readout, the architecture adapters and the last-token engine."""
