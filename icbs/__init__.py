"""Why it is solved: the pruner, model and data in, pruned model out."""
