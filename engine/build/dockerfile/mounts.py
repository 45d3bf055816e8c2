"""`RUN --mount=…`: one comma-separated flag as a checked record (Dockerfile reference, "RUN --mount")."""

from __future__ import annotations

import csv
import posixpath
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Literal, cast

from engine.base.units import parse_size
from engine.errors import InvalidInput

MountKind = Literal["bind", "cache", "tmpfs", "secret", "ssh"]
Sharing = Literal["shared", "private", "locked"]
_KINDS = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_OWNED = ("secret", "ssh", "cache")  # may say mode, uid and gid
_KEYS = (
    "type from source src target dst destination readonly ro readwrite rw id sharing required size mode uid gid env"
).split()
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("0", "f", "F", "FALSE", "false", "False")


@dataclass(frozen=True, slots=True)
class Mount:
    """`from_` is a stage, image or named context ("" the build context); `target` as written. `size` in bytes, 0 no limit.

    `env` names the variable that a secret goes to; None: a file. `mode`, `uid`, `gid` None: the kind's own default.
    """

    kind: MountKind = "bind"
    from_: str = ""
    source: str = ""
    target: str = ""
    read_only: bool = True
    id: str = ""
    sharing: Sharing = "shared"
    required: bool = False
    size: int = 0
    env: str | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None

    @property
    def secret_id(self) -> str:
        return self.source or self.id or posixpath.basename(self.target)

    @property
    def secret_target(self) -> str:
        """Where the secret's file goes; "" for one that is a variable alone."""
        if self.target or self.env is not None:
            return self.target
        return f"/run/secrets/{posixpath.basename(self.secret_id)}"


def split_fields(text: str) -> list[str]:
    """The fields of one CSV line. Raises `InvalidInput`."""
    if "\n" in text or "\r" in text:
        raise InvalidInput(f"--mount {text[:80]!r} holds a line break")
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise InvalidInput(f"--mount {text[:80]!r} cannot be read: {error}") from None


def mount_from(text: str) -> str:
    """The stage, image or context that a mount names, "" for none. Raises `InvalidInput` for a variable in it."""
    found = ""
    for field in split_fields(text):
        key, _, value = field.partition("=")
        if key.lower() == "from":
            if "$" in value[:-1]:
                raise InvalidInput(
                    "'from' doesn't support variable expansion, define alias stage instead",
                    hint="FROM IMAGE AS NAME, then from=NAME",
                )
            found = value
    return found


def parse_mount(text: str, expand: Callable[[str], str]) -> Mount:
    """Raises `InvalidInput`. `expand` resolves the variables of a value."""
    values: dict[str, object] = {}
    kind = "bind"
    read_only: bool | None = None
    for field in split_fields(text):
        key, equals, value = field.partition("=")
        key = key.lower()
        if key not in _KEYS:
            near = get_close_matches(key, _KEYS, 1)
            raise InvalidInput(
                f"unexpected key '{key}' in '{field}'", hint=f"did you mean {near[0]}?" if near else None
            )
        if not equals and key not in ("readonly", "ro", "readwrite", "rw", "required"):
            raise InvalidInput(f"invalid field '{field}' must be a key=value pair")
        value = expand(value) if equals else "true"
        match key:
            case "type":
                kind = _choice("mount type", value.lower(), _KINDS)
            case "readonly" | "ro":
                read_only = _boolean(key, value)
            case "readwrite" | "rw":
                read_only = not _boolean(key, value)
            case "required" | "size":
                values[key] = _only_for(key, value, kind)
            case "sharing":
                values["sharing"] = _choice("sharing value", value.lower(), _SHARING)
            case "mode" | "uid" | "gid":
                values[key] = _number(key, value)
            case "source" | "src":
                values["source"] = value
            case "target" | "dst" | "destination":
                values["target"] = value
            case "from":
                values["from_"] = value
            case _:
                values[key] = value
    if read_only is None:
        read_only = kind not in ("cache", "tmpfs")
    return _checked(replace(Mount(cast("MountKind", kind), read_only=read_only), **values), values)  # type: ignore[arg-type]


def _checked(mount: Mount, given: dict[str, object]) -> Mount:
    for key in ("mode", "uid", "gid"):
        if key in given and mount.kind not in _OWNED:
            raise InvalidInput(f'{key} not allowed for "{mount.kind}" type mounts')
    if "sharing" in given and mount.kind != "cache":
        raise InvalidInput(f"invalid cache sharing set for {mount.kind} mount")
    if mount.kind == "secret":
        if mount.from_:
            raise InvalidInput("secret mount should not have a from")
        if not (mount.source or mount.target or mount.id):
            raise InvalidInput("invalid secret mount. one of source, target required")
        if mount.source and mount.id:
            raise InvalidInput("both source and id can't be set")
    if mount.kind == "ssh" and mount.source:
        raise InvalidInput("ssh does not support source")
    if mount.kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise InvalidInput(f"the {mount.kind} mount has no target", hint="add target=/PATH")
    for text in (mount.target, mount.source, mount.id, mount.env or ""):
        if "\0" in text or "\n" in text:
            raise InvalidInput(f"--mount: a control character in {text[:80]!r}")
    return mount


def _only_for(key: str, value: str, kind: str) -> object:
    if key == "required" and kind in ("secret", "ssh"):
        return _boolean(key, value)
    if key == "size" and kind == "tmpfs":
        return parse_size(value)
    raise InvalidInput(f"unexpected key '{key}' for mount type '{kind}'")


def _choice(what: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        near = get_close_matches(value, known, 1)
        hint = f"did you mean {near[0]}?" if near else f"it is one of {', '.join(known)}"
        raise InvalidInput(f'unsupported {what} "{value}"', hint=hint)
    return value


def _boolean(key: str, value: str) -> bool:
    if value not in _TRUE and value not in _FALSE:
        raise InvalidInput(f"invalid value for {key}: {value}", hint="true or false")
    return value in _TRUE


def _number(key: str, value: str) -> int:
    base = 8 if key == "mode" else 10
    try:
        if not (value.isascii() and value.isdigit()):
            raise ValueError
        number = int(value, base)
    except ValueError:
        raise InvalidInput(f"invalid value {value} for {key}") from None
    if number >= 2**32:
        raise InvalidInput(f"invalid value {value} for {key}")
    return number
