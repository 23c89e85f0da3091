"""Acceptance rules: moves stay only if the loss on held-out samples does not rise."""
