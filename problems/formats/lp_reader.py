"""Parser of LP texts; see :mod:`problems.formats.lp`.

A text is read where solvers agree on its meaning, and refused where they differ: CPLEX reads
``2 3 x`` as ``23 x``, dimod as ``2 + 3 x``; a bracket without ``/ 2`` is halved by CPLEX and not
by Gurobi; a binary with the bound 2 is an integer up to 2 for HiGHS and CPLEX; a name that occurs
only under ``Binary`` is a variable for some and dropped by others.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

from problems.errors import FormatError
from problems.formats.named_terms import NamedTerms
from problems.formats.rows import REMEDY, find_budget
from problems.formats.terms import Row
from problems.formats.text import NUMBER

# Quantifiers are possessive (``*+``): a text that fails to match fails in linear time.
_SYMBOL = r"A-Za-z!\"#$%&(),;?@_'`{}~"
_LETTERS = rf"[{_SYMBOL}0-9.]*+"
#: Brackets are used by Gurobi (``x[0,1]``), directly after a letter.
_NAME = rf"[{_SYMBOL}]{_LETTERS}(?:\[{_LETTERS}\]{_LETTERS})*+"
_SIGNED = r"\s*+(?P<signs>(?:[+-]\s*+)++)?"
_DIGITS = rf"(?P<number>(?>{NUMBER}))"
_TERM = re.compile(rf"{_SIGNED}{_DIGITS}?(?P<gap>\s*+)(?P<name>{_NAME})?")
_PRODUCT = re.compile(rf"{_TERM.pattern}\s*+(?:\*\s*+(?P<other>{_NAME})|\^\s*+2(?![0-9.]))")
_HALF = re.compile(r"\s*+\]\s*+/\s*+2(?:\.0*+)?(?=[\s+-]|$)")

_LABEL = re.compile(rf"\s*+(?P<name>{_NAME})\s*+:")
_RELATION = r"<=|=<|>=|=>|<|>|==?"
_RELATED = re.compile(rf"\s*+({_RELATION})")
_SIDE = re.compile(rf"{_SIGNED}{_DIGITS}[ \t]*+(?=\n|$)")

_EDGE = rf"[+-]?\s*+(?>{NUMBER}|inf(?:inity)?)"
_BOUND = re.compile(
    rf"""\s*+(?:(?P<left>{_EDGE})\s*+(?P<before>{_RELATION})\s*+)? (?P<name>{_NAME})
    (?:\s*+(?P<after>{_RELATION})\s*+(?P<right>{_EDGE}) | \s++(?P<free>free))? [ \t]*+(?=\n|$)""",
    re.IGNORECASE | re.VERBOSE,
)
_TURNED = str.maketrans("<>", "><")

#: A word that opens a section: the first of its line, unless it is the label of a row.
_HEAD = re.compile(
    r"""^[ \t]*+(?:
      (?P<unsupported> semi-?(?:continuous|integers?) | semis? | sin | sec | sos[12]?
                 | (?:lazy|general|gen)[ \t]++cons(?:traints?)? | gencons? | user[ \t]++cuts?
                 | pwlobj | scenarios? | multi-objectives?)
    | (?P<objective> max(?:imize|imum)? | min(?:imize|imum)?)
    | (?P<rows> subject[ \t]++to | such[ \t]++that | s\.t\. | st\.?)
    | (?P<bounds> bounds?)
    | (?P<binaries> binar(?:y|ies) | bin)
    | (?P<integers> generals? | gen | integers? | int)
    | (?P<end> end)
    )(?=\s|$)(?![ \t]*+:)""",
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


#: Names that some readers take for a number, an exponent or a bound.
_TAKEN = re.compile(r"e[0-9.]*|free|inf(?:inity)?|nan", re.IGNORECASE)


def is_name(word: str) -> bool:
    """Whether a word is a valid name of a variable (brackets only in texts for Gurobi)."""
    return (
        len(word) <= 255
        and re.fullmatch(_NAME, word) is not None
        and _TAKEN.fullmatch(word) is None
        and _HEAD.match(word) is None
    )


class Reader:
    """Parser of one text without comments, section by section.

    Raises
    ------
    FormatError
        By :meth:`model`, for any unsupported content.
    """

    def __init__(self, text: str, path: str | Path) -> None:
        self.text, self.path = text, path
        self.at, self.stop = 0, len(text)
        self.found = NamedTerms()
        self.labels: set[str] = set()
        self.counted: set[int] = set()
        self.binaries: set[str] = set()
        self.integers: set[str] = set()
        self.capped: set[str] = set()

    def model(self) -> NamedTerms:
        """Read all sections, and check that every variable is binary."""
        for head, stop in self._sections():
            self.at, self.stop = head.end(), stop
            if head["objective"]:
                self.found.maximize = head["objective"].lower().startswith("max")
                self._objective()
            elif head["rows"]:
                self._rows()
            elif head["bounds"]:
                self._bounds()
            elif head["unsupported"]:
                if self._left():  # HiGHS writes empty ones
                    what = head[0].strip()
                    self._refuse(f"section {what!r} is not supported; a cardinality is a row", head)
            else:
                self._names(self.binaries if head["binaries"] else self.integers)
        binaries = self.binaries | (self.integers & self.capped)
        for name in self.found.index:
            if name not in binaries:
                kind = "an integer without the bound 1" if name in self.integers else "continuous"
                raise FormatError(
                    f"{self.path}: variable {name!r:.40} is {kind}; all must be binary"
                )
        return self.found

    def _sections(self) -> Iterator[tuple[re.Match[str], int]]:
        """Yield the head of each section before ``End``, and where it stops."""
        heads: dict[str | None, re.Match[str]] = {}
        for head in _HEAD.finditer(self.text):
            kind, what = head.lastgroup, head[0].strip()
            if not heads and (kind != "objective" or self.text[: head.start()].strip()):
                raise FormatError(f"{self.path} is not an LP text: it starts without objective")
            if kind == "unsupported":
                kind = what.lower()
            if kind in heads or "end" in heads or (kind == "rows" and len(heads) > 1):
                self._refuse(f"section {what!r} is duplicate or out of order", head)
            heads[kind] = head
        if "end" not in heads:
            raise FormatError(f"{self.path} is truncated: an LP text ends with 'End'")
        if self.text[heads["end"].end() :].strip():
            self._refuse("text after the end", heads["end"])
        for head, following in pairwise(heads.values()):
            yield head, following.start()

    def _objective(self) -> None:
        if label := self._match(_LABEL):
            self.at = label.end()
        self._expression(self.found.linear, objective=True)
        if self._left():
            self._refuse("the objective can't be parsed from here")

    def _rows(self) -> None:
        unequal: int | None = None
        while self._left():
            row: dict[int, float] = {}
            start = self.at
            if label := self._match(_LABEL):
                if label["name"] in self.labels:
                    self._refuse(f"duplicate row name {label['name']!r:.40}")
                self.labels.add(label["name"])
                self.at = label.end()
            self._expression(row)
            relation = self._match(_RELATED)
            if not relation or not row:
                self._refuse("expected a row like 'name: x0 + x1 = 1'; this one differs from here")
            sense = relation[1].strip("=") + "="
            self.at = relation.end()
            side = self._match(_SIDE)
            if not side:
                self._refuse("expected one number on the right, at the end of the line")
            weights = {i: weight for i, weight in row.items() if weight}
            if sense == "=" and not weights.keys().isdisjoint(self.counted):
                self.at = start
                self._refuse("a variable is already in another row; groups must be disjoint")
            if sense == "=":
                self.counted |= weights.keys()
            elif unequal is None:
                unequal = start
            name = label["name"] if label else ""
            self.found.rows.append(
                Row(list(weights), list(weights.values()), self._value(side), sense, name)
            )
            self.at = side.end()
        if unequal is not None and find_budget(self.found.rows) is None:
            self.at = unequal
            self._refuse(f"the row is an inequality; a cardinality is an equality, and {REMEDY}")

    def _expression(self, linear: dict[int, float], *, objective: bool = False) -> None:
        """Read as many terms as possible; constants and brackets only in the objective."""
        first = True
        while True:
            term = _TERM.match(self.text, self.at, self.stop)
            assert term is not None  # all its parts are optional
            digits, name = term["number"], term["name"]
            bracket = digits is None and name is None and self.text.startswith("[", term.end())
            if digits is None and name is None and not bracket:
                if term["signs"]:
                    self._refuse("an operator without a term")
                return
            if not first and not term["signs"]:
                self._refuse("no operator between two terms")
            if bracket or name is None:
                if not objective:
                    self._refuse("a constant or a bracket in a row; rows must be linear")
                if bracket:
                    self._bracket(term)
                    first = False
                    continue
                self.found.offset += self._value(term)
            else:
                i = self.found.variable(name)
                linear[i] = linear.get(i, 0.0) + self._coefficient(term)
            self.at, first = term.end(), False

    def _bracket(self, before: re.Match[str]) -> None:
        """Read ``[ … ] / 2``; ``before`` holds its sign."""
        found, first = self.found, True
        half = -0.5 if _negative(before) else 0.5
        self.at = before.end() + 1
        while product := _PRODUCT.match(self.text, self.at, self.stop):
            if product["name"] is None or (not first and not product["signs"]):
                self._refuse("no operator between two products, or no variable")
            i = found.variable(product["name"])
            found.first.append(i)
            found.second.append(i if product["other"] is None else found.variable(product["other"]))
            found.products.append(half * self._coefficient(product))
            self.at, first = product.end(), False
        end = self._match(_HALF)
        if not end:
            self._refuse("expected a bracket like '[ 2 x0 * x1 + 3 x0 ^ 2 ] / 2'")
        self.at = end.end()

    def _coefficient(self, term: re.Match[str]) -> float:
        """Return the signed coefficient of a variable."""
        digits, name = term["number"], term["name"]
        if digits and not term["gap"] and "e" in (digits + name[0]).lower():
            self._refuse(f"{digits + name!r:.40} may contain an exponent; separate number and name")
        return self._value(term)

    def _value(self, term: re.Match[str]) -> float:
        value = 1.0 if term["number"] is None else float(term["number"])
        if not math.isfinite(value):
            self._refuse(f"{term['number']!r:.40} is not a finite number")
        return -value if _negative(term) else value

    def _names(self, kind: set[str]) -> None:
        for word in re.compile(r"\S+").finditer(self.text, self.at, self.stop):
            if word[0] not in self.found.index:
                self._refuse(
                    f"{word[0]!r:.40} is not in any expression; if it is a variable, add it to the "
                    "objective with coefficient 0",
                    word,
                )
            kind.add(word[0])

    def _bounds(self) -> None:
        while self._left():
            bound = self._match(_BOUND)
            if not bound or not (bound["left"] or bound["right"] or bound["free"]):
                self._refuse("expected a bound like '0 <= x0 <= 1' on a line of its own")
            if bound["name"] not in self.found.index:
                self._refuse(f"{bound['name']!r:.40} is not in any expression")
            edges = [(bound["after"], bound["right"])]
            if bound["left"]:
                edges.append((bound["before"].translate(_TURNED), bound["left"]))
            for relation, edge in edges:
                if bound["free"] or (edge and not _harmless(relation, edge)):
                    self._refuse(
                        f"the bound {bound[0].strip()!r:.60} is not that of a binary (0 and 1); "
                        "substitute the value of a fixed variable in the objective and the rows"
                    )
                if edge and "<" in relation:
                    self.capped.add(bound["name"])
            self.at = bound.end()

    def _match(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        return pattern.match(self.text, self.at, self.stop)

    def _left(self) -> bool:
        """Skip blanks; return whether the section has more text."""
        while self.at < self.stop and self.text[self.at].isspace():
            self.at += 1
        return self.at < self.stop

    def _refuse(self, why: str, match: re.Match[str] | None = None) -> NoReturn:
        at = self.at if match is None else match.start()
        rest = self.text[at:].lstrip()
        at = len(self.text) - len(rest)
        line, shown = self.text.count("\n", 0, at) + 1, rest[:30].partition("\n")[0]
        raise FormatError(f"{self.path}, line {line} ({shown!r}): {why}")


def _negative(term: re.Match[str]) -> bool:
    return bool(term["signs"]) and term["signs"].count("-") % 2 == 1


def _harmless(relation: str, edge: str) -> bool:
    """Whether a bound is that of a binary."""
    value = float(edge.replace(" ", "").replace("\t", "").replace("\n", ""))
    return ("<" in relation and value == 1) or (">" in relation and value == 0)
