"""A training checkpoint becomes a model directory; of `train` what reads and names trained tensors."""
