"""Lottery tickets: sparse networks that train as well as dense ones from their early weights."""

from __future__ import annotations

from icbs.lottery.makers import magnitude, with_pruner
from icbs.lottery.ticket import Round, Ticket, find_ticket

__all__ = ["Round", "Ticket", "find_ticket", "magnitude", "with_pruner"]
