"""Console output in which text from files is never markup or terminal control sequences."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, ConsoleRenderable, RenderHook, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

#: Control characters except tab and line feed, characters that reorder text or have no width,
#: and lone surrogates, which can't be encoded.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ufff9-\ufffb\ud800-\udfff\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    r"""Replace control and invisible characters by escapes, such as ``\x1b`` and ``\u202e``."""
    return _HIDDEN.sub(lambda found: ascii(found[0])[1:-1], text)


def plain(text: str) -> Text:
    """Return text with visible control characters, some of which rich would drop."""
    return Text(visible(text))


def plain_table(title: str = "", caption: str = "", **options: Any) -> Table:
    """Return an empty table in the style of all commands.

    Parameters
    ----------
    title, caption : str
    **options
        Of :class:`rich.table.Table`.
    """
    return Table(
        title=plain(title) if title else None,
        caption=plain(caption) if caption else None,
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
        pad_edge=False,
        **options,
    )


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
