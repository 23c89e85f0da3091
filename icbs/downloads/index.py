"""Download of files from package indexes by pip's configuration, without running code.

``pip download`` runs the ``setup.py`` of a source archive before it compares a hash. Here only
pip's configuration is read; the project's page (PEP 503 and PEP 691) is parsed, and a file is
accepted if its SHA-256 is the expected one.
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
class Indexes:
    """The places where pip searches for files."""

    pages: tuple[str, ...]
    """Addresses of indexes, in order."""
    links: tuple[str, ...] = ()
    """Folders and pages that list files (``find-links``)."""
    certificate: str | None = None
    """File of trusted certificates, if not the default."""

    @classmethod
    def of_pip(cls) -> Indexes:
        """Read pip's settings: environment, then its configuration files.

        In the files, the section ``download`` takes precedence over ``global``.
        """
        files = _configuration()

        def option(name: str) -> str:
            given = os.environ.get(f"PIP_{name.upper().replace('-', '_')}")
            return given or files.get(f"download.{name}") or files.get(f"global.{name}") or ""

        pages = [option("index-url") or DEFAULT, *option("extra-index-url").split()]
        if option("no-index").lower() in ("1", "true", "yes", "on"):
            pages = []
        return cls(tuple(pages), tuple(option("find-links").split()), option("cert") or None)

    def urls(self, project: str, file: str, failed: list[str]) -> Iterator[str]:
        """Yield addresses of a file in order; errors of places are appended to ``failed``."""
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
        except Exception as error:  # unreachable, or without the project: others are tried
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
        """Download a file atomically and check its hash, if given."""
        import pooch

        if _is_local(url):
            with tempfile.TemporaryDirectory(dir=target.parent) as folder:
                copy = Path(
                    shutil.copyfile(url2pathname(urlsplit(url).path), Path(folder) / "copy")
                )
                if pooch.file_hash(str(copy)) != sha256:
                    raise ValueError("its SHA-256 differs from that of the published file")
                copy.replace(target)
            return
        more = {} if self.certificate is None else {"verify": self.certificate}
        get = pooch.HTTPDownloader(headers={"Accept": ACCEPT}, timeout=_SECONDS, **more)
        known = None if sha256 is None else f"sha256:{sha256}"
        log, level = pooch.get_logger(), pooch.get_logger().level
        log.setLevel("WARNING")  # pooch logs the address, which may include a password
        try:
            pooch.retrieve(url, known, fname=target.name, path=target.parent, downloader=get)
        finally:
            log.setLevel(level)


def fetch_file(project: str, file: str, sha256: str, target: Path) -> str:
    """Download a file of a project by its name and hash; nothing in it is run.

    Returns
    -------
    str
        The address of the file, without a password.

    Raises
    ------
    DataError
        If no index lists the file, or none has the file of that hash.
    """
    indexes: Indexes = Indexes.of_pip()
    failed: list[str] = []
    for url in indexes.urls(project, file, failed):
        try:
            indexes.download(url, target, sha256)
            return without_password(url)
        except Exception as error:  # any error of the connection: the next address is tried
            failed.append(_failure(url, error))
    where = ", ".join(map(without_password, (*indexes.links, *indexes.pages))) or "nowhere"
    reason = "; ".join(failed) or f"it is not listed where pip searches ({where})"
    raise DataError(
        f"{file} can't be fetched ({reason}); copy the file into {target.parent} yourself"
    )


def links_of(page: str) -> list[str]:
    """Return the addresses on a project's page, in JSON (PEP 691) or HTML (PEP 503)."""
    if page.lstrip().startswith("{"):
        return [str(entry["url"]) for entry in json.loads(page)["files"]]
    parser = _Links()
    parser.feed(page)
    return parser.found


def without_password(url: str) -> str:
    """Return an address without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _failure(url: str, error: Exception) -> str:
    return f"{without_password(url)}: {error!s:.300}".replace(url, without_password(url))


def _is_local(place: str) -> bool:
    return urlsplit(place).scheme not in ("http", "https")


def _configuration() -> dict[str, str]:
    """Read the settings in pip's configuration files, by ``section.name``; empty without pip."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    output = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    found = {}
    for line in output.splitlines():
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
