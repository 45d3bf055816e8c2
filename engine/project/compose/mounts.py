"""Volumes, secrets and configs of a service (compose-spec, 05-services, 08-configs, 09-secrets)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from engine.errors import EngineError, InvalidInput
from engine.model import Mount
from engine.project.compose.positions import Map, Place, problem
from engine.project.compose.values import entries, flag, mapping, mode_bits, size, text
from engine.project.model import GivenFile

Note = Callable[[str, Place], None]
_MODES = {"ro", "rw", "z", "Z", "nocopy", "cached", "delegated", "consistent"}
_PROPAGATION = {"shared", "slave", "private", "rshared", "rslave", "rprivate"}
_LEFT_OUT = {"name", "labels", "driver", "driver_opts", "template_driver"}
_KINDS = (("secrets", "/run/secrets/"), ("configs", "/"))


class Mounts:
    """Reads what the services of one document mount."""

    def __init__(self, document: Map, project: str, env: Mapping[str, str], note: Note) -> None:
        self._document, self._project, self._env, self._note = document, project, env, note

    def read(self, name: str, body: Map) -> tuple[Mount, ...]:
        found: list[Mount] = []
        for entry, place in entries(body.get("volumes")):
            try:
                mount = self._volume(entry)
            except (EngineError, ValueError, TypeError, KeyError) as error:
                raise problem(place, f"services.{name}.volumes: {error}", getattr(error, "hint", None)) from error
            if mount is not None:
                found.append(mount)
        return tuple(found)

    def files(self, name: str, body: Map) -> tuple[tuple[Mount, ...], tuple[GivenFile, ...]]:
        """Secrets and configs: a file of the host is bound as it is; content, a variable, or an own owner or mode make a
        file that the engine keeps."""
        binds: list[Mount] = []
        given: list[GivenFile] = []
        for kind, folder in _KINDS:
            for entry, place in entries(body.get(kind)):
                made = self._file(kind, folder, entry, place)
                if isinstance(made, Mount):
                    binds.append(made)
                else:
                    given.append(made)
        return tuple(binds), tuple(given)

    # --- volumes ----------------------------------------------------------------------------------------

    def _volume(self, entry: Any) -> Mount | None:
        if isinstance(entry, str):
            return self._short(entry)
        kind = text(entry.get("type") or "volume")
        options: Mapping[str, Any] = entry.get(kind) or {}
        source, target, read_only = (
            text(entry.get("source")),
            text(entry.get("target")),
            flag(entry.get("read_only") or False),
        )
        if not target:
            raise InvalidInput("a mount needs a target", hint="target: /path")
        if kind == "bind":
            recursive = text(options.get("recursive") or "enabled")
            return Mount(
                source,
                target,
                read_only,
                propagation=text(options.get("propagation")),
                create_source=flag(options.get("create_host_path", True)),
                consistency=text(entry.get("consistency")),
                non_recursive=recursive == "disabled",
                read_only_non_recursive=recursive == "writable",
                read_only_force_recursive=recursive == "readonly",
                mode=text(options.get("selinux")),
            )
        if kind == "volume":
            name = self.volume_name(source) if source else ""
            labels = mapping(options.get("labels") or {})
            no_copy, subpath = flag(options.get("nocopy") or False), text(options.get("subpath"))
            return Mount(name, target, read_only, "volume", no_copy=no_copy, subpath=subpath, labels=labels)
        if kind == "tmpfs":
            bits = mode_bits(options.get("mode") or 0)
            return Mount("", target, read_only, "tmpfs", tmpfs_size=size(options.get("size") or 0), tmpfs_mode=bits)
        if kind == "image":
            return Mount(source, target, True, "image", subpath=text(options.get("subpath")))
        raise InvalidInput(f"volumes of type {kind!r} are not supported here", hint="bind, volume, tmpfs and image are")

    def _short(self, entry: str) -> Mount | None:
        source, colon, rest = entry.partition(":")
        if not colon:
            return None  # an anonymous volume: ContainerSpec.volumes
        target, _, mode = rest.partition(":")
        modes = set(mode.split(",")) if mode else set()
        unknown = modes - _MODES - _PROPAGATION
        if unknown:
            raise InvalidInput(f"{entry!r}: option {sorted(unknown)[0]!r} is not known")
        propagation = next(iter(modes & _PROPAGATION), "")
        if source.startswith("/"):
            return Mount(source, target, "ro" in modes, create_source=True, propagation=propagation)
        return Mount(self.volume_name(source), target, "ro" in modes, "volume", no_copy="nocopy" in modes)

    def volume_name(self, name: str) -> str:
        section = self._document.get("volumes")
        if not isinstance(section, Map) or name not in section:
            raise InvalidInput(f"refers to undefined volume {name}", hint="add it under volumes:")
        return named(section[name] or {}, name, self._project)

    # --- secrets and configs ----------------------------------------------------------------------------

    def _file(self, kind: str, folder: str, entry: Any, place: Place) -> Mount | GivenFile:
        source = text(entry.get("source")) if isinstance(entry, Map) else text(entry)
        target = text(entry.get("target")) if isinstance(entry, Map) else ""
        section = self._document.get(kind)
        body = section.get(source) if isinstance(section, Map) else None
        if not isinstance(body, Map):
            raise problem(place, f"{kind}: {source!r} is not defined", f"add it under {kind}:")
        if body.get("external"):
            raise problem(
                place,
                f"{kind}: {source!r} is external, and there is no store of {kind} here",
                "give it `file: …` or `environment: …`",
            )
        for key in _LEFT_OUT & body.keys():
            self._note(f"{kind}.{source}.{key}: there is no store of {kind} here", body.where(key))
        where = target if target.startswith("/") else folder + (target or source)
        own = (
            {key: entry[key] for key in ("uid", "gid", "mode") if entry.get(key) is not None}
            if isinstance(entry, Map)
            else {}
        )
        content = self._content(kind, source, body, place)
        if content is None:
            path = text(body.get("file"))
            if not own:
                return Mount(path, where, True)
            try:
                with open(path, "rb") as file:
                    content = file.read()
            except OSError as error:
                raise problem(place, f"{kind}: {source!r}: {path}: {error.strerror}") from error
        return GivenFile(
            where,
            content,
            int(own.get("uid", 0)),
            int(own.get("gid", 0)),
            mode_bits(own.get("mode", 0o444)),
        )

    def _content(self, kind: str, source: str, body: Map, place: Place) -> bytes | None:
        if body.get("content") is not None:
            return text(body["content"]).encode()
        if body.get("environment"):
            variable = text(body["environment"])
            if variable not in self._env:
                raise problem(place, f"{kind}: {source!r} needs the variable {variable}, which is not set")
            return self._env[variable].encode()
        if not body.get("file"):
            raise problem(
                place, f"{kind}: {source!r} has no source", "give it `file: …`, `environment: …` or `content: …`"
            )
        return None


def named(body: Mapping[str, Any], name: str, project: str) -> str:
    """The engine's name of a volume: its own, an external one's, or `PROJECT_NAME`."""
    external = body.get("external")
    if isinstance(external, Mapping) and external.get("name"):
        return text(external["name"])
    if body.get("name"):
        return text(body["name"])
    return name if external else f"{project}_{name}"
