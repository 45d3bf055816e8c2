"""The requests of the registry server: manifests, blobs, uploads, lists.

Distribution specification 1.1: pulls with ranges, chunked and resumed uploads, mounts, tag lists, deletes, referrers.
"""

from __future__ import annotations

import base64
import hmac
import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, quote, unquote, urlsplit

from engine.errors import Corrupt, EngineError, InvalidInput, NotFound, StorageFull, from_os_error
from engine.oci.digest import Digest
from engine.oci.media import OCI_INDEX
from engine.registry.server_http import Answering, Refused
from engine.store.images import Image
from engine.store.served import Served, repository
from engine.store.store import Store

MAX_MANIFEST = 4 << 20
_ROUTE = re.compile(
    r"/v2/(?P<name>[a-z0-9._/-]{1,255})/(?:manifests/(?P<manifest>[^/]+)|blobs/uploads/(?P<upload>[^/]*)"
    r"|blobs/(?P<blob>[^/]+)|tags/(?P<tags>list)|referrers/(?P<referrers>[^/]+))"
)


@dataclass(frozen=True, slots=True)
class Serving:
    """How to serve. `user` and `password` empty: everybody; `certificate` empty: plain HTTP.

    `every_blob` serves each blob of the store in every repository: for one client who may have them all.
    """

    host: str = "127.0.0.1"
    port: int = 5000
    read_only: bool = False
    user: str = ""
    password: str = ""
    certificate: str = ""
    key: str = ""
    every_blob: bool = False


class App(Protocol):
    """What the requests need of the server."""

    @property
    def store(self) -> Store: ...
    @property
    def serving(self) -> Serving: ...
    @property
    def served(self) -> Served: ...
    def upload_path(self, upload: str) -> Path: ...
    def new_upload(self) -> str: ...
    def commit(self, name: str, upload: str, digest: Digest) -> None: ...
    def arrived(self, image: Image) -> None: ...
    def moved(self, name: str, current: int, total: int) -> None: ...


class Handler(Answering):
    """One connection's requests: which address means what, and what is done."""

    app: App

    # --- dispatch ---------------------------------------------------------------------------------------

    def _handle(self) -> None:
        self._unread = int(self.headers.get("Content-Length") or 0) if self._plain_length() else 0
        self._chunked = self.headers.get("Transfer-Encoding", "").lower() == "chunked"
        try:
            self._route()
        except Refused as error:
            self._refuse(error)
        except NotFound as error:
            self._refuse(Refused(404, "MANIFEST_UNKNOWN", error.message))
        except InvalidInput as error:
            self._refuse(Refused(400, "MANIFEST_INVALID", error.message))
        except Corrupt as error:
            self._refuse(Refused(400, "MANIFEST_INVALID", error.message))
        except StorageFull as error:
            self._refuse(Refused(507, "UNKNOWN", error.message))
        except (ConnectionError, TimeoutError):
            self.close_connection = True
        except (OSError, EngineError) as error:
            self._refuse(Refused(500, "UNKNOWN", str(error)))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _handle

    def _route(self) -> None:
        self._authorize()
        url = urlsplit(self.path)
        self.query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        path = unquote(url.path)
        if path in ("/v2", "/v2/"):
            return self._send(200, b"{}")
        if path == "/v2/_catalog":
            return self._catalog()
        match = _ROUTE.fullmatch(path)
        if match is None:
            raise Refused(404, "NAME_INVALID", "no such address")
        try:
            self.name, self.shown = repository(match["name"]), match["name"]
        except InvalidInput as error:
            raise Refused(400, "NAME_INVALID", error.message) from error
        reading = self.command in ("GET", "HEAD")
        if self.app.serving.read_only and not reading:
            raise Refused(405, "UNSUPPORTED", "this registry is read-only")
        if match["manifest"]:
            return self._manifest(match["manifest"])
        if match["upload"] is not None:
            return self._upload(match["upload"])
        if match["blob"]:
            return self._blob(self._digest(match["blob"]))
        if not reading:
            raise Refused(405, "UNSUPPORTED", f"{self.command} is not known here")
        return self._tags() if match["tags"] else self._referrers(self._digest(match["referrers"]))

    def _authorize(self) -> None:
        serving = self.app.serving
        if not serving.user:
            return
        wanted = base64.b64encode(f"{serving.user}:{serving.password}".encode())
        given = self.headers.get("Authorization", "").removeprefix("Basic ").strip().encode()
        if not hmac.compare_digest(wanted, given):
            headers = {"WWW-Authenticate": 'Basic realm="container-workbench"'}
            raise Refused(401, "UNAUTHORIZED", "authentication required", headers)

    @staticmethod
    def _digest(text: str) -> Digest:
        try:
            return Digest.parse(text)
        except InvalidInput as error:
            raise Refused(400, "DIGEST_INVALID", error.message) from error

    def _page(self, names: list[str]) -> tuple[list[str], dict[str, str]]:
        """`n` and `last` of a list (specification, "Content Discovery")."""
        last = self.query.get("last", "")
        names = [name for name in names if name > last] if last else names
        if not self.query.get("n", "").isdecimal():
            return names, {}
        size = int(self.query["n"][:6])
        page = names[:size]
        if len(page) == len(names) or not page:
            return page, {}
        path = urlsplit(self.path).path
        return page, {"Link": f'<{path}?n={size}&last={quote(page[-1], safe="")}>; rel="next"'}

    def _catalog(self) -> None:
        page, headers = self._page(self.app.served.repositories())
        self._json({"repositories": page}, headers)

    def _tags(self) -> None:
        tags = self.app.served.tags(self.name)
        if not tags:
            raise Refused(404, "NAME_UNKNOWN", f"no repository {self.shown}")
        page, headers = self._page(tags)
        self._json({"name": self.shown, "tags": page}, headers)

    def _referrers(self, digest: Digest) -> None:
        wanted = self.query.get("artifactType", "")
        found = self.app.served.referrers(self.name, digest, wanted)
        body = json.dumps({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}).encode()
        applied = {"OCI-Filters-Applied": "artifactType"} if wanted else {}
        self._send(200, body, {"Content-Type": OCI_INDEX, **applied})

    # --- manifests --------------------------------------------------------------------------------------

    def _manifest(self, reference: str) -> None:
        served: Served = self.app.served
        if self.command in ("GET", "HEAD"):
            found = served.document(self.name, reference)
            headers = {"Content-Type": found.media_type, "Docker-Content-Digest": found.digest}
            return self._send(200, found.raw, headers)
        if self.command == "DELETE":
            served.delete(self.name, reference)
            return self._send(202)
        if self.command != "PUT":
            raise Refused(405, "UNSUPPORTED", f"{self.command} of a manifest is not known")
        raw = b"".join(self._body(MAX_MANIFEST))
        media_type = self.headers.get("Content-Type", "")
        try:
            with self.app.store.using():
                document, image = served.put(self.name, reference, raw, media_type)
        except NotFound as error:
            raise Refused(404, "MANIFEST_BLOB_UNKNOWN", error.message) from error
        if image is not None:
            self.app.arrived(image)
        headers = {
            "Location": f"/v2/{self.shown}/manifests/{document.digest}",
            "Docker-Content-Digest": document.digest,
        }
        subject = document.document.get("subject")
        if isinstance(subject, dict):
            headers["OCI-Subject"] = str(subject["digest"])
        return self._send(201, b"", headers)

    # --- blobs ------------------------------------------------------------------------------------------

    def _blob(self, digest: Digest) -> None:
        served = self.app.served
        if self.command == "DELETE":
            if not served.unlink(self.name, digest):
                raise Refused(404, "BLOB_UNKNOWN", f"{self.shown} has no blob {digest}")
            return self._send(202)
        if self.command not in ("GET", "HEAD"):
            raise Refused(405, "UNSUPPORTED", f"{self.command} of a blob is not known")
        if not self._is_here(digest):
            raise Refused(404, "BLOB_UNKNOWN", f"{self.shown} has no blob {digest}")
        with self.app.store.blobs.open(digest) as blob:
            size = os.fstat(blob.fileno()).st_size
            start, end, status = self._range(size)
            self.send_response(status)
            self.send_header("Content-Length", str(end - start))
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Docker-Content-Digest", digest)
            self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{end - 1}/{size}")
            self.end_headers()
            if self.command == "GET":
                self._pour(blob, start, end, lambda done: self.app.moved(digest.short, done, size))
        return None

    def _is_here(self, digest: Digest) -> bool:
        app = self.app
        if app.serving.every_blob and app.store.blobs.has(digest):
            if not app.serving.read_only:
                app.served.link(self.name, digest)  # a client that finds it will not send it
            return True
        return app.served.has_blob(self.name, digest)

    # --- uploads ----------------------------------------------------------------------------------------

    def _upload(self, upload: str) -> None:
        if not upload:
            if self.command != "POST":
                raise Refused(405, "UNSUPPORTED", "uploads begin with POST")
            return self._begin()
        path = self.app.upload_path(upload)
        if not path.exists():
            raise Refused(404, "BLOB_UPLOAD_UNKNOWN", "no such upload")
        if self.command == "DELETE":
            path.unlink(missing_ok=True)
            return self._send(204)
        if self.command == "GET":
            return self._send(204, b"", self._where(upload, path.stat().st_size))
        if self.command not in ("PATCH", "PUT"):
            raise Refused(405, "UNSUPPORTED", f"{self.command} of an upload is not known")
        size = self._append(upload, path)
        if self.command == "PATCH":
            return self._send(202, b"", self._where(upload, size))
        return self._finish(upload)

    def _begin(self) -> None:
        app = self.app
        if "mount" in self.query:
            digest = self._digest(self.query["mount"])
            source = repository(self.query["from"]) if "from" in self.query else self.name
            if app.served.has_blob(source, digest):
                app.served.link(self.name, digest)
                return self._created(digest)
        upload = app.new_upload()
        if "digest" in self.query:
            self._append(upload, app.upload_path(upload))
            return self._finish(upload)
        list(self._body(0))
        return self._send(202, b"", self._where(upload, 0))

    def _where(self, upload: str, size: int) -> dict[str, str]:
        return {
            "Location": f"/v2/{self.shown}/blobs/uploads/{upload}",
            "Range": f"0-{max(0, size - 1)}",
            "Docker-Upload-UUID": upload,
        }

    def _append(self, upload: str, path: Path) -> int:
        with open(path, "ab") as file:
            size = file.tell()
            match = re.match(r"(?:bytes[ =])?(\d+)-\d+", self.headers.get("Content-Range", ""))
            if match and int(match[1]) != size:
                raise Refused(416, "RANGE_INVALID", f"the upload has {size} bytes", self._where(upload, size))
            try:
                for data in self._body(None):
                    file.write(data)
                    self.app.moved(upload[:12], file.tell(), 0)
            except OSError as error:
                if isinstance(error, ConnectionError | TimeoutError):
                    raise
                path.unlink(missing_ok=True)
                raise from_os_error(error, "taking an upload") from error
            return file.tell()

    def _finish(self, upload: str) -> None:
        digest = self._digest(self.query.get("digest", ""))
        self.app.commit(self.name, upload, digest)
        self._created(digest)

    def _created(self, digest: Digest) -> None:
        headers = {"Location": f"/v2/{self.shown}/blobs/{digest}", "Docker-Content-Digest": digest}
        self._send(201, b"", headers)
