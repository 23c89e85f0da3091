"""OMMX artifacts as files: an image of the Open Container Initiative in a tar archive.

``index.json`` names one manifest, the manifest its layers, and each of them is a blob that is
named after its SHA-256. The layer of an instance has the media type :data:`INSTANCE`.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any

from problems.errors import FormatError
from problems.files import regular, write_bytes

INSTANCE = "application/org.ommx.v1.instance"
_ARTIFACT = "application/org.ommx.v1.artifact"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"


def write_instance(path: str | Path, content: bytes) -> None:
    """Write an artifact with one layer, the bytes of an instance, whole or not at all."""
    blobs: dict[str, bytes] = {}

    def blob(kind: str, data: bytes) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[f"blobs/sha256/{digest}"] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    manifest = {
        "schemaVersion": 2,
        "artifactType": _ARTIFACT,
        "config": blob(_EMPTY, b"{}"),
        "layers": [blob(INSTANCE, content) | {"annotations": {}}],
    }
    described = blob(_MANIFEST, json.dumps(manifest).encode()) | {"annotations": {}}
    index = json.dumps({"schemaVersion": 2, "manifests": [described]}).encode()
    layout = b'{"imageLayoutVersion":"1.0.0"}'
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in {"oci-layout": layout, "index.json": index, **blobs}.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    write_bytes(path, buffer.getvalue())


def read_instance(path: str | Path) -> bytes:
    """Return the bytes of the one instance of an artifact, or of a file that is one itself.

    Raises
    ------
    FormatError
        If the archive is damaged, or holds no instance or several.
    FileNotFoundError
        If there is no such file.
    """
    source = regular(path)
    if not tarfile.is_tarfile(source):
        return source.read_bytes()
    try:
        with tarfile.open(source, "r:") as archive:  # compressed ones are not read
            members = {member.name.removeprefix("./"): member for member in archive}
            return _instance(archive, members, path)
    except FormatError:
        raise
    except (tarfile.TarError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise FormatError(f"{path} is not a readable OMMX artifact: {error!r:.200}") from error


def _instance(
    archive: tarfile.TarFile, members: dict[str, tarfile.TarInfo], path: str | Path
) -> bytes:
    def content(name: str) -> bytes:
        member = members[name]
        if not member.isreg() or member.issparse():  # which may claim any size
            raise FormatError(f"{path}: {name!r:.100} is not a plain file")
        file = archive.extractfile(member)
        assert file is not None
        data = file.read()
        if len(data) != member.size:
            raise FormatError(f"{path}: {name!r:.100} is cut short")
        return data

    def blob(described: dict[str, Any]) -> bytes:
        method, _, digest = str(described["digest"]).partition(":")
        data = content(f"blobs/{method}/{digest}")
        if method != "sha256" or hashlib.sha256(data).hexdigest() != digest:
            raise FormatError(f"{path} is damaged: a blob is not what its digest says")
        return data

    manifests = json.loads(content("index.json"))["manifests"]
    if len(manifests) != 1:
        raise FormatError(f"{path} holds {len(manifests)} images; one is read")
    layers = json.loads(blob(manifests[0]))["layers"]
    found = [layer for layer in layers if layer["mediaType"] == INSTANCE]
    if len(found) != 1:
        others = sorted({str(layer["mediaType"]) for layer in layers})
        raise FormatError(
            f"{path} holds {len(found)} layers of type {INSTANCE}, and one is read "
            f"(types of its layers: {', '.join(others) or 'none'!s:.200})"
        )
    return blob(found[0])
