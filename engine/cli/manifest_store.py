"""Manifest lists that are being made, where the docker command line keeps them: `$DOCKER_CONFIG/manifests/LIST/MANIFEST`, one JSON
file for each image. Either command line goes on with what the other one has begun.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.base.atomic import write_atomic
from engine.errors import Corrupt, InvalidInput, NotFound, from_os_error
from engine.oci.media import DOCKER_LIST, OCI_INDEX
from engine.oci.reference import Reference

# What Go runs on, as the docker command line has it: what an entry of a list may be for.
_SYSTEMS = {
    "aix": "ppc64",
    "android": "386 amd64 arm arm64",
    "darwin": "386 amd64 arm arm64",
    "dragonfly": "amd64",
    "freebsd": "386 amd64 arm arm64",
    "illumos": "amd64",
    "ios": "amd64 arm64",
    "js": "wasm",
    "linux": "386 amd64 arm arm64 loong64 mips mips64 mips64le mipsle ppc64 ppc64le riscv64 s390x",
    "netbsd": "386 amd64 arm",
    "openbsd": "386 amd64 arm arm64",
    "plan9": "386 amd64 arm",
    "solaris": "amd64",
    "wasip1": "wasm",
    "windows": "386 amd64 arm arm64",
}


def known_platform(system: str, architecture: str) -> bool:
    return architecture in _SYSTEMS.get(system, "").split()


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a list. `platform` has the keys of the specification's platform object."""

    name: str
    media_type: str
    digest: str
    raw: bytes
    platform: Mapping[str, Any]

    @property
    def oci(self) -> bool:
        return self.media_type.startswith("application/vnd.oci")

    def descriptor(self) -> dict[str, Any]:
        """As it stands in the list; with the keys in the order of the docker command line, so that digests are the same."""
        found = {"mediaType": self.media_type, "size": len(self.raw), "digest": self.digest}
        return {**found, "platform": self._platform()} if self.platform else found

    def _platform(self) -> dict[str, Any]:
        names = ("architecture", "os", "os.version", "os.features", "variant")
        return {name: self.platform[name] for name in names if self.platform.get(name)}

    def document(self) -> dict[str, Any]:
        """As `inspect -v` shows it and the file holds it."""
        about: dict[str, Any] = {"mediaType": self.media_type, "digest": self.digest, "size": len(self.raw)}
        if self.platform:
            about["platform"] = self._platform()
        key = "OCIManifest" if self.oci else "SchemaV2Manifest"
        raw = base64.b64encode(self.raw).decode()
        return {"Ref": self.name, "Descriptor": about, "Raw": raw, key: json.loads(self.raw)}

    @classmethod
    def parse(cls, text: str) -> Entry:
        """Raises ValueError, LookupError, TypeError."""
        found = json.loads(text)
        about = found["Descriptor"]
        raw = base64.b64decode(found["Raw"], validate=True)
        return cls(
            str(found["Ref"]), str(about["mediaType"]), str(about["digest"]), raw, dict(about.get("platform") or {})
        )


def index_of(entries: Sequence[Entry]) -> bytes:
    """The list. As Docker writes it: an OCI index when an image of it is of OCI, else a manifest list."""
    for entry in entries:
        if not (entry.platform.get("os") and entry.platform.get("architecture")):
            raise InvalidInput(f"manifest {entry.name} must have an OS and Architecture to be pushed to a registry")
    kind = OCI_INDEX if any(entry.oci for entry in entries) else DOCKER_LIST
    document = {"schemaVersion": 2, "mediaType": kind, "manifests": [entry.descriptor() for entry in entries]}
    return json.dumps(document, indent=3, ensure_ascii=False).encode()


def full_name(name: str) -> str:
    """How lists and images are called in the store: in full, with a tag or a digest."""
    return str(Reference.parse(name).with_default_tag())


class ManifestStore:
    def __init__(self, env: Mapping[str, str] | None = None) -> None:
        env = os.environ if env is None else env
        folder = env.get("DOCKER_CONFIG") or os.path.join(env.get("HOME") or os.path.expanduser("~"), ".docker")
        self._folder = Path(folder) / "manifests"

    def _list(self, name: str) -> Path:
        return self._folder / _file_name(full_name(name))

    def has(self, name: str) -> bool:
        return self._list(name).is_dir()

    def entries(self, name: str) -> list[Entry]:
        """In the order of their files' names, as Docker reads them. Raises `NotFound`, `Corrupt`."""
        folder = self._list(name)
        try:
            return [self._read(path) for path in sorted(folder.iterdir()) if not path.name.startswith(".")]
        except FileNotFoundError:
            raise NotFound(f"No such manifest: {full_name(name)}") from None
        except OSError as error:
            raise from_os_error(error, f"reading {folder}") from error

    def get(self, name: str, image: str) -> Entry | None:
        path = self._list(name) / _file_name(full_name(image))
        return self._read(path) if path.is_file() else None

    @staticmethod
    def _read(path: Path) -> Entry:
        try:
            return Entry.parse(path.read_text())
        except (ValueError, LookupError, TypeError) as error:
            raise Corrupt(
                f"{path} is no manifest of a list: {error}", hint="`workbench manifest rm` removes the list"
            ) from None

    def put(self, name: str, entry: Entry) -> None:
        folder = self._list(name)
        try:
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            text = json.dumps(entry.document(), separators=(",", ":"), ensure_ascii=False)
            write_atomic(folder / _file_name(entry.name), text.encode(), durable=False)
        except OSError as error:
            raise from_os_error(error, f"writing to {folder}") from error

    def remove(self, name: str) -> None:
        """Raises `NotFound`."""
        try:
            shutil.rmtree(self._list(name))
        except FileNotFoundError:
            raise NotFound(f"No such manifest: {full_name(name)}") from None
        except OSError as error:
            raise from_os_error(error, f"removing {self._list(name)}") from error


def _file_name(name: str) -> str:
    return name.replace(":", "-").replace("/", "_")
