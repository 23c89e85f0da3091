"""Which weights: initial masks, and the next block of each layer."""
