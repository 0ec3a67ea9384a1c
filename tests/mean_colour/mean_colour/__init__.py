"""A family of the smallest kind: an image is its mean colour, a token is a character, the decoder has one layer."""
