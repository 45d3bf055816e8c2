"""Image references by Docker's rules (distribution/reference, grammar in reference.go)."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from engine.errors import InvalidInput
from engine.oci.digest import Digest

_COMPONENT = r"[a-z0-9]+(?:(?:[._]|__|[-]+)[a-z0-9]+)*"
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?"
_REFERENCE = re.compile(
    rf"(?:(?P<domain>{_DOMAIN})/)?(?P<path>{_COMPONENT}(?:/{_COMPONENT})*)"
    r"(?::(?P<tag>[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}))?"
    r"(?:@(?P<digest>[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}))?",
    re.ASCII,
)
_MAX_NAME = 255
DEFAULT_DOMAIN = "docker.io"


@dataclass(frozen=True, slots=True)
class Reference:
    """`docker.io/library/python:3.11-slim` in parts. `path` is without the domain."""

    domain: str
    path: str
    tag: str = ""
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Docker's normalisation: `python` is `docker.io/library/python`. No tag is added. Raises `InvalidInput`."""
        if re.fullmatch(r"[a-f0-9]{64}", text):
            raise InvalidInput(f"invalid image name {text!r}: a name cannot be 64 hex digits", hint="give NAME[:TAG]")
        domain, slash, rest = text.partition("/")
        if not slash or not (any(c in domain for c in ".:") or domain == "localhost" or domain.lower() != domain):
            domain, rest = DEFAULT_DOMAIN, text
        if domain == "index.docker.io":
            domain = DEFAULT_DOMAIN
        if domain == DEFAULT_DOMAIN and "/" not in rest:
            rest = f"library/{rest}"
        remote = rest.split(":")[0].split("@")[0]
        if remote.lower() != remote:
            raise InvalidInput(f"image name {text!r}: the repository name must be in lower case")
        match = _REFERENCE.fullmatch(f"{domain}/{rest}")
        if not match or match["domain"] != domain:
            raise InvalidInput(f"{text!r} is not an image name", hint="write [REGISTRY/]NAME[:TAG] or NAME@sha256:…")
        if len(match["path"]) > _MAX_NAME:
            raise InvalidInput(f"image name {text[:40]!r}… is longer than {_MAX_NAME} characters")
        return cls(domain, match["path"], match["tag"] or "", Digest.parse(match["digest"]) if match["digest"] else None)

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The shortest name that means the same: `python`, `someone/tool`, `ghcr.io/a/b`."""
        if self.domain != DEFAULT_DOMAIN:
            return self.name
        short = self.path.removeprefix("library/")
        return short if "/" not in short else self.path

    @property
    def familiar(self) -> str:
        return self.familiar_name + self._rest()

    def with_default_tag(self) -> Reference:
        return self if self.tag or self.digest else replace(self, tag="latest")

    def _rest(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def __str__(self) -> str:
        return self.name + self._rest()
