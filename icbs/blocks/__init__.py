"""The block problem: built, solved, and judged."""
