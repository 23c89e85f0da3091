"""Dimensions of a model that can be made smaller, and the cut."""
