"""A trained network at work: exported, and predicting."""
