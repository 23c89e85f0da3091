"""YAML that may come from anyone: plain values only, of bounded size and depth.

Files of settings need mappings, lists, strings, numbers, booleans and null. The rest of YAML is
refused by name: anchors and aliases (a few bytes of them unfold to billions of values), tags,
keys that are neither text nor whole numbers, keys given twice, integers of more than 64 bits, and
nesting without end. Dates stay text.
"""

from __future__ import annotations

from typing import Any

import yaml

LARGEST = 1 << 18
"""Characters of a text; the settings of a run take about two thousand."""
DEEPEST = 32
"""Mappings and lists within one another."""

_PREFIX = "tag:yaml.org,2002:"
_KEYS = {_PREFIX + kind for kind in ("str", "int")}
_TAGS = _KEYS | {_PREFIX + kind for kind in ("map", "seq", "float", "bool", "null")}


class PlainYamlError(ValueError):
    """Text that is not plain YAML; the message says where and what to write instead."""


def load_plain(text: str) -> Any:
    """Read one YAML document.

    Raises
    ------
    PlainYamlError
        If it is damaged, or uses more of YAML than plain values.
    """
    if len(text) > LARGEST:
        raise PlainYamlError(f"it has {len(text)} characters; at most {LARGEST} are read")
    try:
        return yaml.load(text, Loader=_Loader)
    except PlainYamlError:
        raise
    except Exception as error:  # PyYAML lets through whatever Python's own constructors raise
        raise PlainYamlError(" ".join(f"{error!s:.300}".split())) from error


def dump_plain(content: Any) -> str:
    """Write what :func:`load_plain` reads; nothing is written as an alias.

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
        value = super().construct_yaml_int(node)
        if not -(1 << 63) <= value < 1 << 64:
            where = f"line {node.start_mark.line + 1}"
            raise PlainYamlError(f"{where}: an integer of {value.bit_length()} bits is too large")
        return value


# Dates, merges (<<) and the default value (=) are text here.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in _TAGS]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor(_PREFIX + "int", _Loader.construct_yaml_int)
