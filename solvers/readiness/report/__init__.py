"""Readiness as one page of HTML."""

from solvers.readiness.report.page import write_report

__all__ = ["write_report"]
