"""Masks and pruned models as files, and masks held during training."""
