"""Console output in which text from files is never markup or terminal control sequences."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment

#: Control characters except tab and line feed, characters that reorder text or have no width,
#: and lone surrogates, which can't be encoded.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Replace control and invisible characters by escapes, such as ``\x1b`` and ``\u202e``."""
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


class Screen(Console):
    """Console of all commands, without markup and emoji codes, and with :func:`visible` text.

    Layer names, paths, error messages and records come from untrusted files. Styles are given
    as :class:`rich.text.Text` or by ``style``.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, **options)
        self.push_render_hook(_MakeVisible())


class _MakeVisible(RenderHook):
    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        return [_Visible(renderable) for renderable in renderables]


class _Visible:
    """A renderable with visible text; control segments of rich are not changed."""

    def __init__(self, inner: ConsoleRenderable) -> None:
        self.inner = inner

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        segments: Iterable[Segment] = console.render(self.inner, options)
        for text, style, control in segments:
            yield Segment(text if control else visible(text), style, control)
