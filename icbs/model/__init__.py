"""Which parts of a model are pruned, as matrices with masks."""
