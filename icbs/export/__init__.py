"""Masks and pruned models as files, and masks that hold."""
