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
        found = cls.parse_plain(f"{domain}/{rest}", shown=text)
        if found.domain != domain:
            raise _not_a_name(text)
        return found

    @classmethod
    def parse_plain(cls, text: str, *, shown: str = "") -> Reference:
        """The grammar alone: `python` gets no domain, no `library/`. Errors name `shown`. Raises `InvalidInput`."""
        shown = shown or text
        match = _REFERENCE.fullmatch(text)
        if not match:
            if _REFERENCE.fullmatch(text.lower()):
                raise InvalidInput(f"image name {shown!r}: the repository name must be in lower case")
            raise _not_a_name(shown)
        if len(match["path"]) > _MAX_NAME:
            raise InvalidInput(f"image name {shown[:40]!r}… is longer than {_MAX_NAME} characters")
        digest = Digest.parse(match["digest"]) if match["digest"] else None
        return cls(match["domain"] or "", match["path"], match["tag"] or "", digest)

    @property
    def name(self) -> str:
        return f"{self.domain}/{self.path}" if self.domain else self.path

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


def parse_any(text: str) -> Reference | Digest:
    """What may name an image: a reference, a digest, or the 64 hex digits of a sha256. Raises `InvalidInput`."""
    if re.fullmatch(r"[a-f0-9]{64}", text):
        return Digest(f"sha256:{text}")
    try:
        return Digest.parse(text)
    except InvalidInput:
        return Reference.parse(text)


def familiar_match(pattern: str, ref: Reference) -> bool:
    """`docker images PATTERN`: the pattern fits the familiar name, with or without its tag. Raises `InvalidInput`."""
    regex = re.compile(_glob(pattern), re.DOTALL)
    return bool(regex.fullmatch(ref.familiar) or regex.fullmatch(ref.familiar_name))


def _not_a_name(text: str) -> InvalidInput:
    return InvalidInput(f"{text!r} is not an image name", hint="write [REGISTRY/]NAME[:TAG] or NAME@sha256:…")


_END = r"(?:[^\]\\-]|\\.)"  # one end of a range
_GLOB = re.compile(
    rf"(?P<star>\*+)|(?P<any>\?)|\[(?P<negated>\^?)(?P<ranges>(?:{_END}(?:-{_END})?)+)\]"
    r"|\\(?P<escaped>.)|(?P<plain>[^*?\[\\])",
    re.DOTALL,
)


def _glob(pattern: str) -> str:
    """Go's path.Match as a regular expression: nothing crosses a slash, and `**` is `*`."""
    out, at = "", 0
    while at < len(pattern):
        match = _GLOB.match(pattern, at)
        if not match:
            raise InvalidInput(f"{pattern!r} is not a pattern at {pattern[at:]!r}", hint="use *, ? and [a-z]")
        at = match.end()
        if match["star"]:
            out += "[^/]*"
        elif match["any"]:
            out += "[^/]"
        elif match["ranges"]:
            out += f"[{match['negated']}{_ranges(match['ranges'])}]"
        else:
            out += re.escape(match["escaped"] or match["plain"])
    return out


def _ranges(text: str) -> str:
    """The inside of a bracket, each end of a range escaped; an empty range (`z-a`) matches nothing and is dropped."""
    out = ""
    for low, high in re.findall(r"(\\.|.)(?:-(\\.|[^-]))?", text, re.DOTALL):
        first, last = low[-1], (high or low)[-1]
        out += f"{re.escape(first)}-{re.escape(last)}" if first <= last else ""
    return out or "^\\s\\S"
