"""Recovery of a pruned model: new values of the weights that a mask keeps."""
