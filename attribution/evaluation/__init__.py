"""What explanations are worth: one test per file, pure functions on tensors."""
