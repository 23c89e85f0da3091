"""Scores of weights, initial masks, and the selection of blocks."""
