"""The files of a source come in, whole and checked; what they mean is for `convert`."""
