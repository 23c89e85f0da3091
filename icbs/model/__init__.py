"""The layers of a model that are pruned, as matrices with masks."""
