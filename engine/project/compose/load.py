"""From compose files to one document: variables replaced, files merged, include and extends followed, paths made absolute.

The order is compose's: each file is interpolated by itself, then extended, then merged over the files before it; what
`include` brings comes last and may not clash with what is there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import InvalidInput
from engine.project.compose.envfile import read_env_file
from engine.project.compose.merge import merge, normalise
from engine.project.compose.positions import Map, Place, Seq, Tagged, problem, read_yaml
from engine.project.compose.validate import validate
from engine.project.compose.variables import interpolate

SECTIONS = ("services", "networks", "volumes", "secrets", "configs", "models")
_REMOTE = re.compile(r"^[a-z][a-z0-9+.-]*://|^git@|^github\.com/")


@dataclass(slots=True)
class Loaded:
    """`document` is whole and valid. `files` are all that were read: a change of any of them is a change of the project."""

    document: Map
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load(files: Sequence[Path], folder: Path, env: Mapping[str, str]) -> Loaded:
    """`env` has the process's variables over those of `.env`. Raises `DockerfileError` (with the place), `InvalidInput`."""
    loader = _Loader(env)
    document = loader.project(files, folder, ())
    return Loaded(document, list(dict.fromkeys(loader.files)), list(dict.fromkeys(loader.notes)))


class _Loader:
    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.files: list[Path] = []
        self.notes: list[str] = []

    def project(self, files: Sequence[Path], folder: Path, chain: tuple[Path, ...]) -> Map:
        merged: Any = Map(Place(files[0], 1))
        for file in files:
            merged = merge(merged, self._file(file, folder))
        document: Map = normalise(merged)
        validate(document)
        for entry, place in self._entries(document.pop("include", None)):
            self._include(document, entry, place, folder, chain)
        return absolute(document, folder)

    def _file(self, file: Path, folder: Path, *, extend: bool = True) -> Map:
        self.files.append(file)
        document = read_yaml(file)
        if "version" in document:
            self.notes.append(f"`version` is obsolete and ignored ({document.where('version')})")
            del document["version"]
        replaced: Map = self._replaced(document, self._env)
        services = replaced.get("services")
        if extend and isinstance(services, Map):
            for name in list(services):
                services[name] = self._extended(services, name, file, folder, ())
        return replaced

    # --- variables --------------------------------------------------------------------------------------

    def _replaced(self, value: Any, env: Mapping[str, str]) -> Any:
        if isinstance(value, Map):
            found = Map(value.place)
            for key, item in value.items():
                found.put(key, self._scalar(item, env, value.where(key)), value.where(key))
            return found
        if isinstance(value, Seq):
            items = Seq(value.place)
            for item, place in zip(value, value.at, strict=True):
                items.add(self._scalar(item, env, place), place)
            return items
        return value

    def _scalar(self, value: Any, env: Mapping[str, str], place: Place) -> Any:
        if isinstance(value, Tagged):
            return Tagged(value.tag, self._scalar(value.value, env, place))
        if not isinstance(value, str):
            return self._replaced(value, env)

        def missing(name: str) -> None:
            self.notes.append(f"the variable {name} is not set: an empty string stands for it ({place})")

        try:
            return interpolate(value, env, missing)
        except InvalidInput as error:
            raise problem(place, error.message, error.hint) from error

    # --- extends ----------------------------------------------------------------------------------------

    def _extended(self, services: Map, name: str, file: Path, folder: Path, chain: tuple[tuple[Path, str], ...]) -> Any:
        """The service with what it extends under it."""
        service = services[name]
        if not isinstance(service, Map) or "extends" not in service:
            return service
        place = service.where("extends")
        if (file, name) in chain:
            names = " → ".join(f"{f.name}:{n}" for f, n in (*chain, (file, name)))
            raise problem(place, f"services extend each other: {names}")
        target = service["extends"]
        wanted = str(target.get("service") if isinstance(target, Map) else target)
        other = str(target.get("file") or "") if isinstance(target, Map) else ""
        own = service.copy_of(key for key in service if key != "extends")
        if other:
            path = self._local(other, folder, place)
            base_document = self._file(path, path.parent, extend=False)
            pool, base_file, base_folder = base_document.get("services"), path, path.parent
        else:
            pool, base_file, base_folder = services, file, folder
        if not isinstance(pool, Map) or wanted not in pool:
            raise problem(place, f"service {wanted!r} is not in {base_file.name}", "`extends` names a service")
        base = self._extended(pool, wanted, base_file, base_folder, (*chain, (file, name)))
        if other and isinstance(base, Map):
            base = absolute_service(base, base_folder)
        return merge(base, own, ("services", name))

    # --- include ----------------------------------------------------------------------------------------

    def _entries(self, value: Any) -> list[tuple[Any, Place]]:
        return list(zip(value, value.at, strict=True)) if isinstance(value, Seq) else []

    def _include(self, document: Map, entry: Any, place: Place, folder: Path, chain: tuple[Path, ...]) -> None:
        texts = [entry] if isinstance(entry, str) else _list(entry["path"])
        paths = [self._local(str(text), folder, place) for text in texts]
        for path in paths:
            if path in chain:
                raise problem(place, f"files include each other: {' → '.join(p.name for p in (*chain, path))}")
        inner = paths[0].parent
        env_files: list[Path] = []
        if isinstance(entry, Map):
            if entry.get("project_directory"):
                inner = (folder / str(entry["project_directory"])).resolve()
            env_files = [folder / str(name) for name in _list(entry.get("env_file"))]
        env = dict(self._env)
        for path in env_files or [inner / ".env"]:
            found = read_env_file(path, self._env, required=bool(env_files))
            if path.exists():
                self.files.append(path)
            env = {**{name: value for name, value in found.items() if value is not None}, **env}
        sub = _Loader(env)
        other = sub.project(paths, inner, (*chain, *paths))
        self.files += sub.files
        self.notes += sub.notes
        for section in SECTIONS:
            theirs = other.get(section)
            if not isinstance(theirs, Map):
                continue
            ours = document.get(section)
            if not isinstance(ours, Map):
                ours = Map(theirs.place)
                document.put(section, ours, theirs.place)
            for name, value in theirs.items():
                if name in ours and ours[name] != value:
                    raise problem(
                        theirs.where(name),
                        f"{section}.{name} of the included file stands in {ours.where(name)} too",
                        "rename one, or override it with a second file in include's path list",
                    )
                ours.put(name, value, theirs.where(name))

    def _local(self, text: str, folder: Path, place: Place) -> Path:
        if _REMOTE.match(text):
            raise problem(place, f"{text}: only files of this machine can be included", "clone it, and name its path")
        path = Path(os.path.normpath(folder / os.path.expanduser(text)))
        if path.is_dir():
            path = path / "compose.yaml"
        if not path.is_file():
            raise problem(place, f"{path} does not exist")
        return path


def _list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, Seq | list) else [value]


# --- paths ------------------------------------------------------------------------------------------------


def _under(folder: Path) -> Callable[[str], str]:
    return lambda text: os.path.normpath(folder / os.path.expanduser(text))


def is_url(text: str) -> bool:
    return bool(_REMOTE.match(text)) or text.endswith(".git")


def absolute(document: Map, folder: Path) -> Map:
    """Every relative path of the document made absolute against the project's folder."""
    path = _under(folder)
    services = document.get("services")
    if isinstance(services, Map):
        for name, service in services.items():
            if isinstance(service, Map):
                services[name] = absolute_service(service, folder)
    for section in ("secrets", "configs"):
        for entry in _values(document.get(section)):
            if isinstance(entry.get("file"), str):
                entry["file"] = path(entry["file"])
    for volume in _values(document.get("volumes")):
        options = volume.get("driver_opts")
        if isinstance(options, Map) and options.get("o") == "bind" and isinstance(options.get("device"), str):
            options["device"] = path(options["device"])
    return document


def _values(section: Any) -> list[Map]:
    return [entry for entry in section.values() if isinstance(entry, Map)] if isinstance(section, Map) else []


def absolute_service(service: Map, folder: Path) -> Map:
    path = _under(folder)
    service = service.copy_of()
    build = service.get("build")
    if isinstance(build, str):
        service["build"] = build if is_url(build) else path(build)
    elif isinstance(build, Map):
        build = build.copy_of()
        context = str(build.get("context", "."))
        build["context"] = context if is_url(context) else path(context)
        contexts = build.get("additional_contexts")
        if isinstance(contexts, Map):
            contexts = contexts.copy_of()
            for name, value in contexts.items():
                if isinstance(value, str) and "://" not in value and not value.startswith("service:"):
                    contexts[name] = path(value)
            build["additional_contexts"] = contexts
        service["build"] = build
    for key in ("env_file", "label_file"):
        if key in service:
            service[key] = _env_files(service[key], path, service.where(key))
    if isinstance(service.get("volumes"), Seq):
        service["volumes"] = _volumes(service["volumes"], path)
    develop = service.get("develop")
    if isinstance(develop, Map) and isinstance(develop.get("watch"), Seq):
        for rule in develop["watch"]:
            if isinstance(rule, Map) and isinstance(rule.get("path"), str):
                rule["path"] = path(rule["path"])
    return service


def _env_files(value: Any, path: Callable[[str], str], place: Place) -> Seq:
    items = Seq(place)
    for entry in [value] if isinstance(value, str | Map) else value:
        if isinstance(entry, Map):
            entry = entry.copy_of()
            entry["path"] = path(str(entry.get("path")))
            items.add(entry, entry.place)
        else:
            items.add(path(str(entry)), place)
    return items


def _volumes(value: Seq, path: Callable[[str], str]) -> Seq:
    items = Seq(value.place)
    for entry, place in zip(value, value.at, strict=True):
        if isinstance(entry, str):
            source, colon, rest = entry.partition(":")
            items.add(f"{path(source)}:{rest}" if colon and source.startswith((".", "~", "/")) else entry, place)
        elif isinstance(entry, Map) and entry.get("type") == "bind" and isinstance(entry.get("source"), str):
            entry = entry.copy_of()
            entry["source"] = path(entry["source"])
            items.add(entry, place)
        else:
            items.add(entry, place)
    return items


def project_environment(
    folder: Path, env_files: Sequence[Path], process: Mapping[str, str]
) -> tuple[dict[str, str], list[Path]]:
    """The variables that interpolation sees: the process's own over the project's `.env` (or the files given)."""
    found: dict[str, str] = {}
    read: list[Path] = []
    for path in env_files or [folder / ".env"]:
        if not env_files and not path.is_file():
            continue
        values = read_env_file(path, {**found, **process})
        read.append(path)
        found |= {name: value for name, value in values.items() if value is not None}
    return {**found, **process}, read
