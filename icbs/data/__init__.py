"""Samples, and the loss on them."""
