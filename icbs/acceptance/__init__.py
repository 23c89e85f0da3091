"""Acceptance rules: a move is kept only if the held-out loss does not increase."""
