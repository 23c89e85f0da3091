"""A run: its context, state, start, checkpoints and folder."""
