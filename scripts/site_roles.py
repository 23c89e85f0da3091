"""A griffe extension that converts Sphinx's roles in docstrings to links.

Roles such as ``:class:`icbs.Pruner``` are understood by editors and Sphinx, but not by Markdown.
"""

from __future__ import annotations

import re
from typing import Any

import griffe

ROLE = re.compile(r":(?:class|func|meth|mod|attr|data|exc|obj):`~?([^`]+)`")
TARGET = re.compile(r"(?:(?P<text>[^<]+?)\s*<)?(?P<name>[\w.]+)>?")


class Roles(griffe.Extension):
    """Rewrite the docstrings of all objects."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring in place."""
        if obj.docstring is not None:
            obj.docstring.value = as_links(obj.docstring.value, obj)


def as_links(text: str, obj: griffe.Object) -> str:
    """Convert each role to a link, or to plain code if its target is not documented."""

    def link(found: re.Match[str]) -> str:
        target = TARGET.fullmatch(found[1])
        if target is None:
            return f"`{found[1]}`"
        name = target["name"]
        shown = target["text"] or name.removeprefix("icbs.").removeprefix("solvers.")
        owner = obj if obj.is_class or obj.is_module else obj.parent
        full = name if "." in name or owner is None else f"{owner.path}.{name}"
        return f'<autoref identifier="{full}" optional><code>{shown}</code></autoref>'

    return ROLE.sub(link, text)
