"""The report of a comparison: one page of HTML that needs no other file and no network."""

from solvers.comparison.report.page import write_report

__all__ = ["write_report"]
