"""The files of a model directory: tensors streamed in and out, what a `config.json` says. Knows no family but by name."""
