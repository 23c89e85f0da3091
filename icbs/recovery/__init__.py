"""Recovery of a pruned model: new values of the weights that a mask keeps."""

FOLDER = "recovery"
"""Folder of the recovery in a run folder."""
