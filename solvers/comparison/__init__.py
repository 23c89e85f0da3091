"""Compare solvers on problems: one table of runs, measures over it, and a report."""
