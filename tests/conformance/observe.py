"""One form for a result, whoever built it: config, history, and what each layer above the base holds."""

from __future__ import annotations

import hashlib
import tarfile
from typing import Any, BinaryIO

_CONFIG = (
    "Env", "Cmd", "Entrypoint", "User", "WorkingDir", "Labels", "Volumes", "ExposedPorts", "Shell", "StopSignal", "Healthcheck", "OnBuild",
)  # fmt: skip


def layer(stream: BinaryIO) -> dict[str, list[Any]]:
    """path -> type, mode, uid, gid, then size and hash of a file, or a link's target."""
    found: dict[str, list[Any]] = {}
    with tarfile.open(fileobj=stream, mode="r|") as tar:
        for member in tar:
            name = member.name.removeprefix("./").strip("/")
            entry: list[Any] = [f"{member.mode & 0o7777:04o}", member.uid, member.gid]
            if member.isfile():
                body = tar.extractfile(member)
                data = body.read() if body else b""
                entry = ["file", *entry, len(data), hashlib.sha256(data).hexdigest()[:16]]
                if name.rpartition("/")[2].startswith(".wh."):
                    entry = ["whiteout"]
            elif member.issym() or member.islnk():
                target = member.linkname.removeprefix("./").removeprefix("/") if member.islnk() else member.linkname
                entry = ["link" if member.issym() else "hardlink", *entry, target]
            else:
                entry = [{b"5": "dir", b"6": "fifo"}.get(member.type, "device"), *entry]
            found[name] = entry
    return found


def config(document: dict[str, Any]) -> dict[str, Any]:
    settings = document.get("config") or {}
    return {name: settings[name] for name in _CONFIG if settings.get(name)} | (
        {"Author": document["author"]} if document.get("author") else {}
    )


def history(document: dict[str, Any], base: int) -> list[list[Any]]:
    """Above the first `base` entries: the text, and whether it made a layer."""
    return [[h.get("created_by", ""), not h.get("empty_layer", False)] for h in document.get("history", [])[base:]]
