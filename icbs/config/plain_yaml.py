"""Untrusted YAML 1.2: plain values only, of bounded size and depth.

Settings files need mappings, lists, strings, numbers, booleans and null, which are resolved by
the core schema of YAML 1.2: ``6e9`` is a number; ``2:4``, ``off`` and dates are text. The
rest of YAML is refused: anchors and aliases (a few bytes can expand to billions of values),
tags, keys that are neither text nor integers, duplicate keys, integers of more than 64 bits,
and unbounded nesting.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

LARGEST = 1 << 18
"""Maximum length of a document, in characters; the settings of a run take about 2000."""
DEEPEST = 32
"""Maximum nesting depth of mappings and lists."""

_PREFIX = "tag:yaml.org,2002:"
_KEYS = {_PREFIX + kind for kind in ("str", "int")}
_TAGS = _KEYS | {_PREFIX + kind for kind in ("map", "seq", "float", "bool", "null")}

#: Type → pattern, and possible first characters (YAML 1.2.2, section 10.3.2). Everything else is
#: text.
_CORE_SCHEMA = {
    "null": (r"null|Null|NULL|~|", ["~", "n", "N", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
        r"|[-+]?(\.inf|\.Inf|\.INF)|\.nan|\.NaN|\.NAN",
        list("-+.0123456789"),
    ),
}


class PlainYamlError(ValueError):
    """Text that is not plain YAML; the message names the line and the remedy."""


def load_plain(text: str) -> Any:
    """Read one YAML document.

    Raises
    ------
    PlainYamlError
        If it is damaged, or uses YAML beyond plain values.
    """
    if len(text) > LARGEST:
        raise PlainYamlError(f"it has {len(text)} characters; at most {LARGEST} are read")
    try:
        return yaml.load(text, Loader=_Loader)
    except PlainYamlError:
        raise
    except Exception as error:  # PyYAML does not wrap exceptions of Python's constructors
        raise PlainYamlError(" ".join(f"{error!s:.300}".split())) from error


def dump_plain(content: Any) -> str:
    """Write a document that :func:`load_plain` reads, without aliases.

    Raises
    ------
    PlainYamlError
        If a value is not plain.
    """
    try:
        return yaml.dump(content, Dumper=_Dumper, sort_keys=False)
    except yaml.YAMLError as error:
        raise PlainYamlError(" ".join(f"{error!s:.300}".split())) from error


class _Dumper(yaml.SafeDumper):
    """Also quotes text that YAML 1.1 tools would parse as another type."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


class _Loader(yaml.SafeLoader):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()
        where = f"line {event.start_mark.line + 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None) is not None:
            raise PlainYamlError(f"{where}: anchors and aliases are not read; write it out")
        if self.depth == DEEPEST:
            raise PlainYamlError(f"{where}: values are nested more than {DEEPEST} deep")
        self.depth += 1
        try:
            node = super().compose_node(parent, index)
        finally:
            self.depth -= 1
        if node is not None and node.tag not in _TAGS:
            raise PlainYamlError(f"{where}: the tag {node.tag!r:.80} is not read; leave it out")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            where, name = f"line {key.start_mark.line + 1}", f"{key.value!r:.80}"
            if not isinstance(key, yaml.ScalarNode):
                raise PlainYamlError(f"{where}: a key has several parts; it must be text")
            if key.tag not in _KEYS:
                raise PlainYamlError(f"{where}: the key {name} is not text; put it in quotes")
            if (key.tag, key.value) in seen:
                raise PlainYamlError(f"{where}: {name} is given twice")
            seen.add((key.tag, key.value))
        return super().construct_mapping(node, deep)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        text = str(self.construct_scalar(node))
        value = int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))
        if not -(1 << 63) <= value < 1 << 64:
            where = f"line {node.start_mark.line + 1}"
            raise PlainYamlError(f"{where}: an integer of {value.bit_length()} bits is too large")
        return value


_Loader.yaml_implicit_resolvers = {}
_Loader.add_constructor(_PREFIX + "int", _Loader.construct_yaml_int)
for _kind, (_pattern, _first) in _CORE_SCHEMA.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(_PREFIX + _kind, re.compile(f"(?:{_pattern})\\Z"), _first)
