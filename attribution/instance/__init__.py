"""The instance lens: which training examples shaped a prediction; one method per file."""
