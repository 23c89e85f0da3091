"""Files of a package index, found as pip is configured to find them, and run by nobody.

``pip download`` builds the metadata of a source archive, which runs the ``setup.py`` inside,
before it compares a hash. So pip is only asked where it would look; the page of the project
(PEP 503 and PEP 691) is read here, and the file is kept if its SHA-256 is the expected one.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit
from urllib.request import url2pathname

from icbs.errors import DataError

DEFAULT = "https://pypi.org/simple"
ACCEPT = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, "
    "text/html;q=0.01"
)
_SECONDS = 60


@dataclass(frozen=True)
class Places:
    """Where pip would look."""

    pages: tuple[str, ...]
    """Addresses of indexes, the first one first."""
    links: tuple[str, ...] = ()
    """Folders and pages that list files (``find-links``)."""
    certificate: str | None = None
    """File of certificates that connections are held against, if not the usual one."""

    @classmethod
    def of_pip(cls) -> Places:
        """Read pip's settings: environment before configuration, ``download`` before ``global``."""
        files = _configuration()

        def option(name: str) -> str:
            given = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
            return given or files.get(f"download.{name}") or files.get(f"global.{name}") or ""

        pages = [option("index-url") or DEFAULT, *option("extra-index-url").split()]
        if option("no-index").lower() in ("1", "true", "yes", "on"):
            pages = []
        return cls(tuple(pages), tuple(option("find-links").split()), option("cert") or None)

    def urls(self, project: str, file: str, failed: list[str]) -> Iterator[str]:
        """Yield addresses of a file, best first; places that can't be read go into ``failed``."""
        for place in self.links:
            folder = Path(url2pathname(urlsplit(place).path)) if _is_local(place) else None
            if folder is not None and (folder / file).is_file():
                yield (folder / file).resolve().as_uri()
            elif folder is None:
                yield from self._listed(place, file, failed)
        for base in self.pages:
            yield from self._listed(f"{base.rstrip('/')}/{project}/", file, failed)

    def _listed(self, page: str, file: str, failed: list[str]) -> Iterator[str]:
        try:
            links = links_of(self._text(page))
        except Exception as error:  # an index that is down, or lacks the project, hides no other
            failed.append(_failure(page, error))
            return
        for link in links:
            url = urljoin(page, link.partition("#")[0])
            local = _is_local(url) and not _is_local(page)
            if unquote(urlsplit(url).path).rpartition("/")[2] == file and not local:
                yield url

    def _text(self, page: str) -> str:
        if _is_local(page):
            return (Path(url2pathname(urlsplit(page).path)) / "index.html").read_text("utf-8")
        with tempfile.TemporaryDirectory() as folder:
            self.download(page, Path(folder) / "page", None)
            return (Path(folder) / "page").read_text("utf-8")

    def download(self, url: str, target: Path, sha256: str | None) -> None:
        """Fetch a file, whole or not at all; with a hash, that file or none."""
        import pooch

        if _is_local(url):
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                copy = Path(
                    shutil.copyfile(url2pathname(urlsplit(url).path), Path(folder) / "copy")
                )
                if pooch.file_hash(str(copy)) != sha256:
                    raise ValueError("its SHA-256 differs from that of the file published")
                copy.replace(target)
            return
        more = {} if self.certificate is None else {"verify": self.certificate}
        get = pooch.HTTPDownloader(headers={"Accept": ACCEPT}, timeout=_SECONDS, **more)
        known = None if sha256 is None else f"sha256:{sha256}"
        log, level = pooch.get_logger(), pooch.get_logger().level
        log.setLevel("WARNING")  # it writes the address, which may hold a password
        try:
            pooch.retrieve(url, known, fname=target.name, path=target.parent, downloader=get)
        finally:
            log.setLevel(level)


def fetch_file(project: str, file: str, sha256: str, target: Path) -> str:
    """Fetch a file of a project by its name and hash; nothing in it is run.

    Returns
    -------
    str
        The address that it came from, without a password.

    Raises
    ------
    DataError
        If no index lists it, or none gives the file of that hash.
    """
    places: Places = Places.of_pip()
    failed: list[str] = []
    for url in places.urls(project, file, failed):
        try:
            places.download(url, target, sha256)
            return shown(url)
        except Exception as error:  # whatever the transport raises; the next place may do
            failed.append(_failure(url, error))
    where = ", ".join(shown(page) for page in (*places.links, *places.pages)) or "nowhere"
    reason = "; ".join(failed) or f"it is not listed where pip would look ({where})"
    raise DataError(
        f"{file} can't be fetched ({reason}); put the file into {target.parent} by hand"
    )


def links_of(page: str) -> list[str]:
    """Addresses on a project's page, in JSON (PEP 691) or HTML (PEP 503)."""
    if page.lstrip().startswith("{"):
        return [str(entry["url"]) for entry in json.loads(page)["files"]]
    parser = _Links()
    parser.feed(page)
    return parser.found


def shown(url: str) -> str:
    """Write an address without its user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _failure(url: str, error: Exception) -> str:
    return f"{shown(url)}: {error!s:.300}".replace(url, shown(url))


def _is_local(place: str) -> bool:
    return urlsplit(place).scheme not in ("http", "https")


def _configuration() -> dict[str, str]:
    """Read the settings in pip's own files, by ``section.name``; none where there is no pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    said = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {}
    for line in said.splitlines():
        name, equals, value = line.partition("=")
        if equals and not name.startswith(":env:"):
            found[name] = str(ast.literal_eval(value))
    return found


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value for name, value in attrs if (tag, name) == ("a", "href") and value]
