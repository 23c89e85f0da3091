"""Gradients and curvature of all layers from one pass over a batch, in bounded memory."""
