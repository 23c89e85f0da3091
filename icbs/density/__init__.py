"""Densities: the search for one that meets a target, and schedules that reach one in steps."""
