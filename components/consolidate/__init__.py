"""A training checkpoint becomes a model directory; of `train` only checkpoints and the model's selection."""
