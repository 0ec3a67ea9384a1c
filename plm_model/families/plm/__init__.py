"""Meta's Perception Language Model: a Perception Encoder's tower, a projector and a Llama decoder."""
