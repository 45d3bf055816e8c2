"""Builds every case with a real dockerd's BuildKit and writes `recorded.json`.

PEER_DOCKER_HOST=unix:///… DOCKER=/usr/bin/docker python -m tests.conformance.record
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx

from tests.build.conftest import BASE, BASE_DOCKERFILE, BUSYBOX, GROUP, PASSWD
from tests.conformance import observe
from tests.conformance.cases import STAMP
from tests.conformance.cases_more import ALL

RECORDED = Path(__file__).with_name("recorded.json")


class Peer:
    """The Engine API over a unix socket; a build's context is the request's body, so no session is needed."""

    def __init__(self, host: str) -> None:
        self._host = host
        transport = httpx.HTTPTransport(uds=host.removeprefix("unix://"))
        self._http = httpx.Client(transport=transport, base_url="http://docker", timeout=300)
        self.version = self._http.get("/version").raise_for_status().json()["Version"]
        files = {"busybox!": Path(BUSYBOX).read_bytes(), "passwd": PASSWD, "group": GROUP}
        self.build(BASE, BASE_DOCKERFILE, files)
        self._base = len(self._http.get(f"/images/{BASE}/json").raise_for_status().json()["RootFS"]["Layers"])
        self._base_history = len(self._save(BASE)[0].get("history", []))

    def build(self, tag: str, text: str, files: Mapping[str, str | bytes]) -> str:
        """The error's text, "" when there is none."""
        if ".dockerignore" in files:
            return self._build_folder(tag, text, files)
        query = {"version": "2", "t": tag, "nocache": "1"}
        response = self._http.post("/build", params=query, content=_context({**files, "Dockerfile": text}))
        if response.status_code != 200:
            return response.text
        errors = [json.loads(line).get("error", "") for line in response.text.splitlines() if line]
        return next(filter(None, errors), "")

    def _build_folder(self, tag: str, text: str, files: Mapping[str, str | bytes]) -> str:
        """Ignore files are the command line's to read: BuildKit leaves them aside in a context that comes as a tar.
        $DOCKER is one that speaks BuildKit without a plugin (20.10's does)."""
        with tempfile.TemporaryDirectory() as folder:
            with tarfile.open(fileobj=io.BytesIO(_context({**files, "Dockerfile": text}))) as tar:
                tar.extractall(folder, filter="fully_trusted")
            environment = {**os.environ, "DOCKER_HOST": self._host, "DOCKER_BUILDKIT": "1"}
            command = [os.environ.get("DOCKER", "docker"), "build", "-q", "--no-cache", "-t", tag, folder]
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
        return done.stderr if done.returncode else ""

    def _save(self, tag: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        data = self._http.get(f"/images/{tag}/get").raise_for_status().content
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:

            def read(name: str) -> bytes:
                body = tar.extractfile(name)
                assert body is not None
                return body.read()

            manifest = json.loads(read("manifest.json"))[0]
            document = json.loads(read(manifest["Config"]))
            layers = manifest["Layers"][getattr(self, "_base", 0) :] if document.get("history") else []
            return document, [observe.layer(io.BytesIO(read(name))) for name in layers]

    def observe(self, text: str, files: Mapping[str, str | bytes]) -> dict[str, Any]:
        error = self.build("test/case", text.format(base=BASE), files)
        if error:
            return {"error": error[-300:]}
        document, above = self._save("test/case")
        if "FROM scratch" in text:
            base, self._base = self._base, 0
            document, above = self._save("test/case")
            self._base = base
        start = 0 if "FROM scratch" in text else self._base_history
        return {"config": observe.config(document), "history": observe.history(document, start), "layers": above}


def _context(files: Mapping[str, str | bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folders: set[str] = set()
        for name, content in files.items():
            path = name.removesuffix("!")
            for depth in range(1, path.count("/") + 1):
                folder = "/".join(path.split("/")[:depth])
                if folder not in folders:
                    folders.add(folder)
                    info = tarfile.TarInfo(folder)
                    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, STAMP
                    tar.addfile(info)
            data = content.encode() if isinstance(content, str) else content
            info = tarfile.TarInfo(path)
            info.size, info.mode, info.mtime = len(data), 0o755 if name.endswith("!") else 0o644, STAMP
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def main() -> None:
    peer = Peer(os.environ["PEER_DOCKER_HOST"])
    recorded = {name: peer.observe(text, files) for name, (text, files) in ALL.items()}
    document = {"builder": f"dockerd {peer.version}, BuildKit", "cases": recorded}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in recorded.items())
    RECORDED.write_text(f'{{"builder": {json.dumps(document["builder"])}, "cases": {{\n{lines}\n}}}}\n')
    failed = [name for name, case in recorded.items() if "error" in case]
    print(f"{len(recorded)} cases, {len(failed)} that the peer refuses: {failed}", file=sys.stderr)


if __name__ == "__main__":
    main()
