"""Image configs (image-spec, config.md). Unknown fields are kept when a config is rewritten."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import Corrupt
from engine.oci.digest import Digest
from engine.oci.platform import Platform

MAX_LAYERS = 500  # overlayfs stacks 500 lower layers at most


@dataclass(frozen=True, slots=True)
class History:
    """One line of the history, oldest first; an `empty_layer` has no diff ID."""

    created: str = ""
    created_by: str = ""
    comment: str = ""
    empty_layer: bool = False
    author: str = ""

    def to_json(self) -> dict[str, object]:
        texts = {"created": self.created, "created_by": self.created_by, "author": self.author, "comment": self.comment}
        document: dict[str, object] = {key: value for key, value in texts.items() if value}
        return document | ({"empty_layer": True} if self.empty_layer else {})


class ImageConfig:
    """An immutable view of a config document. `with_…` return new ones."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Raises `Corrupt` when a field that is used is not of its kind."""
        try:
            document = json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise Corrupt(f"the image config is not JSON: {error}") from error
        if not isinstance(document, dict):
            raise Corrupt("the image config is not a JSON object")
        _check(document)
        return cls(document)

    @classmethod
    def scratch(cls, platform: Platform) -> ImageConfig:
        document: dict[str, Any] = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            document["variant"] = platform.variant
        return cls({**document, "config": {}, "rootfs": {"type": "layers", "diff_ids": []}, "history": []})

    def _setting(self, name: str) -> Any:
        return (self.document.get("config") or {}).get(name)

    def _strings(self, name: str) -> tuple[str, ...]:
        return tuple(self._setting(name) or ())

    def _optional(self, name: str) -> tuple[str, ...] | None:
        value = self._setting(name)
        return tuple(value) if value else None

    @property
    def os(self) -> str:
        return str(self.document.get("os") or "linux")

    @property
    def architecture(self) -> str:
        return str(self.document.get("architecture") or "")

    @property
    def variant(self) -> str:
        return str(self.document.get("variant") or "")

    @property
    def created(self) -> str:
        return str(self.document.get("created") or "")

    @property
    def env(self) -> tuple[str, ...]:
        return self._strings("Env")

    @property
    def cmd(self) -> tuple[str, ...] | None:
        return self._optional("Cmd")

    @property
    def entrypoint(self) -> tuple[str, ...] | None:
        return self._optional("Entrypoint")

    @property
    def user(self) -> str:
        return str(self._setting("User") or "")

    @property
    def working_dir(self) -> str:
        return str(self._setting("WorkingDir") or "")

    @property
    def exposed_ports(self) -> tuple[str, ...]:
        return self._strings("ExposedPorts")

    @property
    def volumes(self) -> tuple[str, ...]:
        return self._strings("Volumes")

    @property
    def labels(self) -> Mapping[str, str]:
        return dict(self._setting("Labels") or {})

    @property
    def stop_signal(self) -> str:
        return str(self._setting("StopSignal") or "")

    @property
    def shell(self) -> tuple[str, ...] | None:
        return self._optional("Shell")

    @property
    def on_build(self) -> tuple[str, ...]:
        return self._strings("OnBuild")

    @property
    def healthcheck(self) -> Mapping[str, Any] | None:
        return self._setting("Healthcheck") or None

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return tuple(Digest(text) for text in (self.document.get("rootfs") or {}).get("diff_ids") or ())

    @property
    def history(self) -> tuple[History, ...]:
        return tuple(
            History(
                str(entry.get("created") or ""),
                str(entry.get("created_by") or ""),
                str(entry.get("comment") or ""),
                bool(entry.get("empty_layer")),
                str(entry.get("author") or ""),
            )
            for entry in self.document.get("history") or ()
        )

    def with_config(self, **changes: Any) -> ImageConfig:
        """Docker's key names (`Env=…`, `Cmd=…`); None removes a key."""
        settings = {**(self.document.get("config") or {}), **changes}
        kept = {key: value for key, value in settings.items() if value is not None}
        return ImageConfig({**self.document, "config": kept})

    def with_author(self, name: str) -> ImageConfig:
        return ImageConfig({**self.document, "author": name})

    def with_created(self, created: str) -> ImageConfig:
        return ImageConfig({**self.document, "created": created})

    def with_step(self, history: History, diff_id: Digest | None, created: str) -> ImageConfig:
        """One more step; `diff_id` when it made a layer."""
        rootfs = self.document.get("rootfs") or {"type": "layers", "diff_ids": []}
        if diff_id is not None:
            rootfs = {**rootfs, "diff_ids": [*rootfs.get("diff_ids", ()), str(diff_id)]}
        steps = [*(self.document.get("history") or ()), history.to_json()]
        return ImageConfig({**self.document, "created": created, "rootfs": rootfs, "history": steps})

    def to_bytes(self) -> bytes:
        """Equal documents give equal bytes: keys sorted, no spaces."""
        try:
            return json.dumps(self.document, separators=(",", ":"), sort_keys=True, ensure_ascii=False).encode()
        except UnicodeEncodeError:  # a lone surrogate, which JSON can only write as an escape
            return json.dumps(self.document, separators=(",", ":"), sort_keys=True).encode()


def _is_strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _check(document: dict[str, Any]) -> None:
    for name in ("os", "architecture", "variant", "created", "author"):
        if not isinstance(document.get(name, ""), str | None):
            raise Corrupt(f"the image config's {name} is not a string")
    settings = document.get("config")
    settings = {} if settings is None else settings
    if not isinstance(settings, dict):
        raise Corrupt("the image config's `config` is not an object")
    for name in ("Env", "Cmd", "Entrypoint", "Shell", "OnBuild"):
        if settings.get(name) is not None and not _is_strings(settings[name]):
            raise Corrupt(f"the image config's {name} is not a list of strings")
    for name in ("ExposedPorts", "Volumes", "Labels", "Healthcheck"):
        if settings.get(name) is not None and not isinstance(settings[name], dict):
            raise Corrupt(f"the image config's {name} is not an object")
    for name in ("User", "WorkingDir", "StopSignal"):
        if not isinstance(settings.get(name), str | None):
            raise Corrupt(f"the image config's {name} is not a string")
    if bad := [entry for entry in settings.get("Env") or () if "=" not in entry]:
        raise Corrupt(f"the image config's Env has {bad[0][:100]!r}, which is not NAME=VALUE")
    if not all(isinstance(value, str) for value in (settings.get("Labels") or {}).values()):
        raise Corrupt("the image config's Labels are not strings")
    rootfs = document.get("rootfs")
    if not isinstance(rootfs, dict) or not isinstance(rootfs.get("diff_ids"), list):
        raise Corrupt("the image config has no rootfs.diff_ids")
    if len(rootfs["diff_ids"]) > MAX_LAYERS:
        raise Corrupt(f"the image has {len(rootfs['diff_ids'])} layers, more than {MAX_LAYERS}")
    for text in rootfs["diff_ids"]:
        Digest.parse(text)
    history = document.get("history")
    history = [] if history is None else history
    if not isinstance(history, list) or not all(isinstance(entry, dict) for entry in history):
        raise Corrupt("the image config's history is not a list of objects")
