"""The tests of the second paper (Yu and Ananiadou 2024): one per file, over the residual stream of language models."""
