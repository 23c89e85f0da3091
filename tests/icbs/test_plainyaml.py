"""Untrusted YAML: plain values of bounded size, or an error of one line."""

from __future__ import annotations

import json
import re
import time

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st

from icbs import ConfigError, PrunerConfig
from icbs.cli.config_file import Settings, parse_assignments
from icbs.config import brief
from icbs.config.plain_yaml import LARGEST, PlainYamlError, dump_plain, load_plain

keys = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=9)
scalars = (
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False) | keys
)  # fmt: skip
plain = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4)
)


@given(plain)
def test_plain_values_come_back_as_they_were(value):
    assert load_plain(dump_plain(value)) == value


@given(plain)
def test_what_pyyaml_writes_is_read_as_pyyaml_reads_it(value):
    """So run folders of earlier versions are; but for text that YAML 1.2 takes for a number."""
    text = yaml.safe_dump(value)
    assume("&id" not in text)
    assume(not re.search(r"(?m)(^|[ \[{,?-])[-+]?[0-9.]+[eE][0-9]+|\b0o[0-7]", text))
    assert load_plain(text) == yaml.safe_load(text)


json_text = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Zl", "Zp"]), max_size=9)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | json_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(json_text, inner, max_size=4),
)  # fmt: skip


@given(json_values)
def test_json_is_yaml(value):
    """As YAML 1.2 has it, down to floats such as 1e-07."""
    assert load_plain(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:4", "2:4"), ("12:30:45", "12:30:45"), ("on", "on"), ("off", "off"), ("yes", "yes"),
        ("No", "No"), ("y", "y"), ("1_000", "1_000"), ("2001-01-01", "2001-01-01"), ("=", "="),
        ("6e9", 6e9), ("1e-3", 1e-3), ("+1.5E+3", 1500.0), (".5", 0.5), ("5.", 5.0),
        ("017", 17), ("0o17", 15), ("0x1F", 31), ("-12", -12), ("-.inf", -float("inf")),
        ("true", True), ("FALSE", False), ("~", None), ("Null", None), ("", None), ("tRue", "tRue"),
    ],
)  # fmt: skip
def test_scalars_are_those_of_the_core_schema(text, value):
    """YAML 1.2.2, section 10.3.2."""
    found = load_plain(f"a: {text}")["a"]
    assert (type(found), found) == (type(value), value)


@pytest.mark.parametrize("text", ["2:4", "off", "1e5", "0o7", "12:30", "", "~", "017", "1_0"])
def test_text_is_quoted_where_any_version_of_yaml_would_misread_it(text):
    written = dump_plain({"a": text})
    assert load_plain(written) == yaml.safe_load(written) == {"a": text}


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40))])


@pytest.mark.parametrize(
    ("text", "match"),
    [
        (BOMB, "line 1: anchors and aliases are not read"),
        ("a: *b", "anchors and aliases"),
        ("[" * 100_000, "nested more than 32 deep"),
        ("- " * 100_000, "nested more than 32 deep"),
        ("a: 1\nb: 2\na: 3", "line 3: 'a' is given twice"),
        ("? [1, 2]\n: 3", "a key has several parts"),
        ("? {a: b}\n: 3", "a key has several parts"),
        ("null: 3", "the key 'null' is not text; put it in quotes"),
        ("true: 3", "the key 'true' is not text"),
        ("1.5: 3", "the key '1.5' is not text"),
        ("a: !!python/object/apply:os.system [ls]", "the tag '.*os.system' is not read"),
        ("a: !!binary YQ==", "the tag '.*binary' is not read"),
        ("a: !!set {b, c}", "the tag '.*set' is not read"),
        ("a: !!int ''", "invalid literal"),
        ("a: !!bool x", "'x'"),
        ("a: " + "9" * 5000, "4300 digits"),
        ("a: 0x" + "f" * 5000, "an integer of 20000 bits is too large"),
        ("a: \x00", "unacceptable character"),
        ("a: 'b", "unexpected end of stream"),
        ("--- 1\n--- 2", "expected a single document"),
        ("a" * (LARGEST + 1), "at most 262144 are read"),
    ],
    ids=lambda text: text[:20],
)
def test_anything_else_is_refused_by_name_and_at_once(text, match, tmp_path):
    began = time.process_time()
    with pytest.raises(PlainYamlError, match=match) as caught:
        load_plain(text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"a\.yaml can't be read"):
        Settings.read(tmp_path / "a.yaml", {})
    assert time.process_time() - began < 5


def test_dates_and_merges_are_text():
    assert load_plain("a: 2001-99-99\n2001-01-01: b") == {"a": "2001-99-99", "2001-01-01": "b"}
    assert load_plain("<<: {a: 1}") == {"<<": {"a": 1}}
    assert load_plain("1: 2") == {1: 2}  # an embedding's variables


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("[1, 2]", "must be a mapping"),
        ("3: 4", "keys should be strings|Keys should be strings"),
        ("pruner: 3", "pruner = 3"),
        ("pruner: {densities: [1]}", r"pruner\.densities = \[1\]"),
        ("pruner: {densities: 3, constraint: '2:4'}", r"pruner\.densities = 3"),
        ("pruner: {densities: {'0': x}}", r"pruner\.densities\.0 = 'x'"),
        ("pruner: {density: .nan}", r"pruner\.density = nan"),
        ("pruner: {seed: 18446744073709551615}", r"pruner\.seed"),
        ("pruner: {max_memory: 1e400}", r"pruner\.max_memory = inf: should be a number of b"),
        ("pruner: {max_memory: 1.2.3GB}", r"pruner\.max_memory"),
        ("pruner: {constraint: [1]}", r"pruner\.constraint"),
        ("pruner: {paper: 3}", r"pruner\.paper = 3"),
        ("pruner: {paper: {ridge: x}}", r"pruner\.paper\.ridge = 'x'"),
        ("pruner: {paper: [], ridge: 1}", r"pruner\.paper = \[\]"),
        ("pruner: {acceptance: 1}", r"pruner\.acceptance = 1"),
        ("pruner: {acceptance_unit: [1]}", r"acceptance_unit = \[1\]"),
        ("pruner: {gram_weight: [1]}", r"gram_weight = \[1\]"),
        ("evaluate_every: 1.5", "evaluate_every = 1.5"),
        ("task: [os, system]", "task = "),
        ("task_options: {1: 2}", r"task_options\.1"),
        ("run: {}", "run = "),
    ],
)
def test_values_of_a_wrong_type_are_named(tmp_path, text, match):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match=match):
        Settings.read(tmp_path / "a.yaml", {})


def test_words_of_the_command_line_are_plain_too():
    with pytest.raises(ConfigError, match="the value of 'a' can't be read: line 1: anchors"):
        parse_assignments(["a=&b [*b]"])
    assert parse_assignments(["a=1e-3", "b=[1, x]", "c=6e9"]) == {
        "a": 1e-3,
        "b": [1, "x"],
        "c": 6e9,
    }


def test_values_in_messages_are_short():
    deep: list[object] = []
    for _ in range(100):
        deep = [deep, deep]
    for value in (deep, "x" * 10**6, {str(i): i for i in range(10**5)}, 10**5000, [10**5000]):
        assert len(brief(value)) < 600
    with pytest.raises(ConfigError) as caught:
        PrunerConfig.of(density=deep, **{f"a{i}": 1 for i in range(1000)})
    assert "and 991 more" in str(caught.value)


def test_shared_lists_are_written_twice_not_as_aliases():
    shared = [1, 2]
    assert load_plain(dump_plain({"a": shared, "b": shared})) == {"a": [1, 2], "b": [1, 2]}
    with pytest.raises(PlainYamlError, match="cannot represent"):
        dump_plain({"a": object()})
