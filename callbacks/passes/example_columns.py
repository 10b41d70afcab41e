"""Columns of a predicted split that more than one stage reads or writes."""

from __future__ import annotations

SPELLED = ("prediction_token", "label_token")
"""Of next-token data: the tokens that `prediction` and `label` number, as they are written."""
RUNNER_UP = "runner_up"
"""Of next-token data: the token that ranks second. Of few outputs it follows from the probabilities."""
PLANTS = ("twin", "wrong_label", "shortcut")
"""Columns in which demo data records what was planted."""
CHOICES = "choices"
"""Column of a multiple-choice question's answers."""
FOLDED_PREDICTION = "folded_prediction"
"""Column of a split whose labels are coarser than the model's classes (HANS): the label that a prediction counts as."""
