"""YAML of strangers: plain values of bounded size, or one line that says what is wrong."""

from __future__ import annotations

import time

import pytest
import yaml
from hypothesis import given
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
    text = yaml.safe_dump(value)
    if "&id" not in text:
        assert load_plain(text) == yaml.safe_load(text)


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
        ("yes: 3", "the key 'yes' is not text"),
        ("1.5: 3", "the key '1.5' is not text"),
        ("a: !!python/object/apply:os.system [ls]", "the tag '.*os.system' is not read"),
        ("a: !!binary YQ==", "the tag '.*binary' is not read"),
        ("a: !!set {b, c}", "the tag '.*set' is not read"),
        ("a: !!int ''", "string index"),
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
        ("pruner: {max_memory: 1e400}", r"pruner\.max_memory = '1e400': should be a number of b"),
        ("pruner: {max_memory: 1.2.3GB}", r"pruner\.max_memory"),
        ("pruner: {constraint: [1]}", r"pruner\.constraint"),
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
    assert (
        PrunerConfig.of(max_memory="6e9").max_memory == PrunerConfig.of(max_memory=6e9).max_memory
    )


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
