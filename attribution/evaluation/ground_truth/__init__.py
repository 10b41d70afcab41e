"""Ground truth that lists are held against: models trained without rows, exact refits, single ablated neurons."""
