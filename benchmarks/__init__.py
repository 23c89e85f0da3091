"""Measurements, each a script whose results lie in ``results``."""
