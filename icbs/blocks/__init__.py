"""Build and solve the block problems of a pass."""
