"""The word list of the lint finds its own bad examples, and nothing in the checked folders."""

from __future__ import annotations

import pytest

from scripts.plain_words import ROOTS, RULES, Rule, files, findings


def source(rule: Rule, phrase: str) -> str:
    if rule.where == "name":
        return f"def {phrase}():\n    pass\n"
    return f'"""{phrase}"""\n' if rule.where == "docstring" else f"# {phrase}\n"


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.bad)
def test_a_rule_finds_its_bad_example_alone(rule, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(source(rule, rule.bad), encoding="utf-8")
    assert any(rule.better in line for line in findings(path))
    path.write_text(source(rule, rule.good), encoding="utf-8")
    assert findings(path) == []


PYTHON = '''"""A module."""

x = 1
"""What x is."""

# Work that was
# begun.
message = (
    f"{x} is no "
    "label"
)
quoted = "is no label"  # plain: ok
'''
MARKDOWN = """# Title

`is no code`, and text that
hangs on it.

```python
anew = 1
```
"""


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("module.py", PYTHON, {4: "What", 6: "begun", 9: "is no"}),
        ("page.md", MARKDOWN, {3: "hangs on"}),
    ],
)
def test_findings_name_the_line(name, text, expected, tmp_path):
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    found = findings(path)
    assert len(found) == len(expected)
    for line, phrase in expected.items():
        assert any(f"{name}:{line}: {phrase!r}" in text for text in found), found


@pytest.mark.slow  # 'make lint' checks it too
def test_the_checked_folders_are_clean():
    assert len(files()) >= 10 * len(ROOTS)
    assert [line for path in files() for line in findings(path)] == []
