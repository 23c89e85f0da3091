"""Benchmarks: scripts that write their results into ``results``."""
