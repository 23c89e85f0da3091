"""One pass over a batch: gradients and curvature for every layer, in bounded memory."""
