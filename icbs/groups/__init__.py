"""Groups of weights that are pruned as a whole: heads, neurons, channels, kernels, tiles."""
