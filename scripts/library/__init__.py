"""Make the public set of pruning problems from the models: see :mod:`scripts.library.__main__`."""
