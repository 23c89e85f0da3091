"""Recovery of a pruned model: weights that make up for the mask."""
