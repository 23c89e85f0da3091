"""Lint for plain words: phrases that technical English has a better word for.

``python -m scripts.plain_words`` checks docstrings, comments, strings and names of the Python
files, and the text of the Markdown files, under :data:`ROOTS`. It prints each finding with a
better word, and exits with 1 if there are any. A line that must contain such a phrase is marked
with ``plain: ok``.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
#: Folders and files to check, and those under them to skip.
ROOTS = (
    *("icbs", "problems", "solvers", "tests/problems", "tests/solvers", "docs", "examples"),
    *("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md"),
)
EXCLUDED: tuple[str, ...] = ()
#: Marks a line that quotes a phrase.
ALLOWED = "plain: ok"


class Rule(NamedTuple):
    """A phrase to avoid, and a better one; ``bad`` and ``good`` test the pattern."""

    pattern: str
    """Regular expression, case-insensitive, matched with single blanks between words."""
    better: str
    bad: str
    good: str
    where: str = "text"
    """``text``: anywhere but names; ``docstring``: only docstrings; ``name``: names of modules,
    classes and functions."""


_COMPARATIVE = "longer|more|less|fewer|worse|better|larger|smaller|higher|lower|later|earlier"
RULES = (
    Rule(rf"(?<!there )\b(is|are|was|were) no\b(?! ({_COMPARATIVE})\b)", "'is not a'",
         "an object is no label", "there is no label; it is no longer one"),
    Rule(r"^(what|who|whose|how|where|why|which)\b", "a noun phrase or an imperative",
         "How kernels are compiled.", "Compilation of kernels.", "docstring"),
    Rule(r"\banew\b", "'again'", "compiled anew", "compiled again"),
    Rule(r"\bbegun\b", "'started'", "work that was begun", "work that was started"),
    Rule(r"\bbeside\b", "'besides', 'next to', 'relative to'", "options beside it", "besides it"),
    Rule(r"\bamiss\b", "'unexpected', 'wrong'", "comes amiss", "is wrong"),
    Rule(r"\btells? (no|nothing)\b", "'does not contain', 'can't infer'",
         "the ending tells no format", "tell the user"),
    Rule(r"\btold\b", "'given', 'passed', 'inferred'", "told by the ending", "inferred from it"),
    Rule(r"\b(says?|knows?|hears?) nothing\b", "'does not mention', 'ignores'",
         "it says nothing of it", "it ignores it"),
    Rule(r"\bby name or what\b|\bsuch as it is\b|\bas (it|they) stands?\b", "a direct statement",
         "the model as it stands", "the unchanged model"),
    Rule(r"\b(hangs?|hung) (on|upon)\b(?! small)", "'depends on'", "hang on it", "depend on it"),
    Rule(r"\bgives? way\b", "a direct statement", "what gives way", "the batch is smaller"),
    Rule(r"\bvouch(es|ed)?\b", "'trust'", "nobody vouches for it", "an untrusted file"),
    Rule(r"\bat (its|the|our) (own )?door\b", "'on input', 'when reading'",
         "converts at its door", "converts on input"),
    Rule(r"\b(is|are|was|were|be|been) said\b", "'reported', 'stated'",
         "what is said first", "what is reported first"),
    Rule(r"\bdear(er|est)?\b", "'expensive', 'costly'", "the dearest flip", "the largest cost"),
    Rule(r"\bto be had\b|\bcan't be had\b", "'available'", "a name to be had", "an available one"),
    Rule(r"\bfor (sure|ever)\b", "'always', 'forever'", "waits for ever", "waits forever"),
    Rule(r"\b(lest|nought|naught|amid|thither|hither|whence|thence|whither|shall|unsaid|whoever|"
         r"nobody)\b", "a modern or concrete word", "lest it fail", "so that it can't fail"),
    Rule(r"\b(one|two|three|four) (thread|process|task|file|row|module|test|check|program|lane|"
         r"group|line|column|problem|integer|variable|method) an? [a-z]", "'one … per …'",
         "one file a backend", "one file per backend"),
    Rule(r"\bas (it|they) comes?\b", "'unchecked', 'in their order'",
         "takes indices as they come", "takes unchecked indices"),
    Rule(r"\bcomes? (twice|apart)\b", "'duplicate'", "a product comes twice", "a duplicate"),
    Rule(r"\b(someone|somebody|everyone|anybody) else\b", "'third-party', 'another'",
         "someone else's code", "third-party code"),
    Rule(r"\bforeign\b", "'third-party', 'external'", "a foreign object", "an external object"),
    Rule(r"\b(to|at) hand\b", "'available'", "couplings at hand", "available couplings"),
    Rule(r"\blooks? at the clock\b|\blooked at\b", "'checks the clock', 'considered'",
         "all swaps are looked at", "all swaps are tried"),
    Rule(r"\bhand(s|ed|ing)? (back|over)\b", "'return', 'pass'", "handed back", "returned"),
    Rule(r"\bgo(es)? on\b", "'continue'", "the call goes on", "the call continues"),
    Rule(r"\bsome (\d|ten|twenty|hundred|thousand|million)", "'about'", "some 20 ms", "about 20"),
    Rule(r"\bat the (least|most)\b(?! \w+ing)", "'at least', 'at most'",
         "ten at the least", "at least ten"),
    Rule(r"\ball the same\b", "'anyway', 'still'", "it is read all the same", "it is still read"),
    Rule(r"\b(keeps?|holds?|takes?|gives?|fits?) not\b", "'does not …'",
         "the mask keeps not 5", "the mask does not keep 5"),
    Rule(r"^(conclude|foreign|chance|relaxed|choosing|taps|turns|making|beginning|holding|"
         r"caching|in_turn|hear|add_up|from_first|caution|reluctance)$",
         "a name that the field uses", "chance", "rng", "name"),
)  # fmt: skip


class Piece(NamedTuple):
    """A piece of text of a file: its first line, its kind (see :class:`Rule`), the text."""

    line: int
    kind: str
    text: str


def findings(path: Path) -> list[str]:
    """Return ``path:line: 'phrase'; better: …`` for each phrase in a file."""
    source = path.read_text(encoding="utf-8")
    lines, found = source.splitlines(), []
    for piece in _python(source, path.stem) if path.suffix == ".py" else _markdown(source):
        text, end = " ".join(piece.text.split()), piece.line + piece.text.count("\n")
        if any(ALLOWED in line for line in lines[piece.line - 1 : end]):
            continue
        for rule in RULES:
            if rule.where == piece.kind or (rule.where == "text" and piece.kind != "name"):
                for match in re.finditer(rule.pattern, text, re.IGNORECASE):
                    found.append(f"{path}:{piece.line}: {match[0]!r}; better: {rule.better}")
    return found


def _python(source: str, module: str) -> Iterator[Piece]:
    """Yield names, docstrings (also of fields), other strings and blocks of comments."""
    yield Piece(1, "name", module)
    docstrings = set()
    for node in ast.walk(ast.parse(source)):  # breadth first: statements before their values
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield Piece(node.lineno, "name", node.name)
        if isinstance(node, ast.Expr):
            docstrings.add(node.value)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield Piece(node.lineno, "docstring" if node in docstrings else "text", node.value)
    block: list[tokenize.TokenInfo] = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            if block and token.start[0] > block[-1].start[0] + 1:
                yield _comment(block)
                block = []
            block.append(token)
    if block:
        yield _comment(block)


def _comment(block: list[tokenize.TokenInfo]) -> Piece:
    return Piece(block[0].start[0], "text", "\n".join(t.string.lstrip("#: ") for t in block))


def _markdown(source: str) -> Iterator[Piece]:
    """Yield paragraphs, without blocks of code and inline code."""
    text = re.sub(r"^ *```.*?^ *```", lambda m: "\n" * m[0].count("\n"), source, flags=re.M | re.S)
    line = 1
    for paragraph in re.split(r"(\n\s*\n)", re.sub(r"`[^`\n]*`", "", text)):
        yield Piece(line, "text", paragraph)
        line += paragraph.count("\n")


def files() -> list[Path]:
    """Return the files to check."""
    skipped = [ROOT / name for name in EXCLUDED]
    found = [
        path
        for root in (ROOT / name for name in ROOTS)
        for path in ([root] if root.is_file() else root.rglob("*"))
        if path.suffix in (".py", ".md") and not any(map(path.is_relative_to, skipped))
    ]
    return sorted(found)


def main() -> int:
    """Print all findings; return the exit status."""
    found = [line for path in files() for line in findings(path.relative_to(Path.cwd()))]
    print("\n".join(found) or "no phrases to replace")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
