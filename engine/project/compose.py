"""compose.yaml (compose-spec): the part that runs here. What is not supported is named with file and line, never dropped in silence."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from engine.base.units import parse_size
from engine.errors import DockerfileError, EngineError, InvalidInput
from engine.model import Mount
from engine.project.model import BuildSpec, Project, Service

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<op>:?[-+?])(?P<word>[^}]*))?\}|(?P<bare>[A-Za-z_]\w*))"
)
SUPPORTED = frozenset(
    "build image command entrypoint environment env_file ports working_dir user volumes labels container_name depends_on stop_signal "
    "stop_grace_period mem_limit cpus pids_limit read_only tty privileged cap_add cap_drop".split()
)
BUILD_SUPPORTED = {"context", "dockerfile", "args", "target"}


class Located(dict[str, Any]):
    """A YAML mapping that knows the line (from 1) of each of its keys."""

    lines: dict[str, int]


class _Loader(yaml.SafeLoader):
    pass


def _mapping(loader: _Loader, node: yaml.MappingNode) -> Located:
    loader.flatten_mapping(node)
    found = Located()
    found.lines = {}
    for key_node, value_node in node.value:
        key = str(loader.construct_object(key_node, deep=True))
        found.lines[key] = key_node.start_mark.line + 1
        found[key] = loader.construct_object(value_node, deep=True)
    return found


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_compose(file: Path, default_name: str) -> Project:
    """Raises `DockerfileError` (with file and line) and `InvalidInput`."""
    return _Compose(file, default_name).project()


class _Compose:
    def __init__(self, file: Path, default_name: str) -> None:
        self._file, self._default_name = file, default_name
        self._notes: list[str] = []
        self._env_files: list[Path] = []
        self._env = {**read_env_file(file.parent / ".env", missing_ok=True), **os.environ}

    def _error(self, message: str, line: int, hint: str | None = None) -> DockerfileError:
        lines = self._file.read_text(errors="replace").splitlines()
        source = lines[line - 1] if 0 < line <= len(lines) else ""
        return DockerfileError(message, file=str(self._file), line=line, source=source, hint=hint)

    def project(self) -> Project:
        try:
            document = yaml.load(self._file.read_text(), _Loader)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            raise self._error(f"not YAML: {error.problem}", mark.line + 1 if mark else 1) from error
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{self._file} cannot be read: {error}") from error
        if not isinstance(document, Located) or not isinstance(document.get("services"), Located):
            raise self._error("a compose file needs a mapping of services", 1, "services:\n    web:\n      build: .")
        for key, line in document.lines.items():
            if key not in ("services", "name", "version") and not key.startswith("x-"):
                self._note(key, line)
        name = self._text(document.get("name") or self._default_name)
        services = document["services"]
        found = {key: self._service(name, key, value, services.lines[key]) for key, value in services.items()}
        return Project(
            name,
            self._file.parent,
            self._file,
            self._ordered(found, services),
            tuple(self._notes),
            tuple(self._env_files),
        )

    def _note(self, what: str, line: int) -> None:
        self._notes.append(f"not supported yet, left out: {what} ({self._file.name}:{line})")

    def _ordered(self, services: Mapping[str, Service], located: Located) -> tuple[Service, ...]:
        order: list[Service] = []
        path: list[str] = []

        def visit(name: str) -> None:
            if services[name] in order:
                return
            if name in path:
                raise self._error(f"services depend on each other: {' → '.join([*path, name])}", located.lines[name])
            path.append(name)
            for need in services[name].depends_on:
                if need not in services:
                    raise self._error(f"service {name!r} depends on {need!r}, which is not there", located.lines[name])
                visit(need)
            path.pop()
            order.append(services[name])

        for name in services:
            visit(name)
        return tuple(order)

    # --- one service ------------------------------------------------------------------------------------

    def _service(self, project: str, name: str, body: object, line: int) -> Service:
        if not isinstance(body, Located):
            raise self._error(f"service {name!r} is not a mapping", line)
        for key, where in body.lines.items():
            if key not in SUPPORTED and not key.startswith("x-"):
                self._note(f"services.{name}.{key}", where)
        build = self._build(body) if "build" in body else None
        if build is None and not body.get("image"):
            raise self._error(f"service {name!r} has neither build nor image", line)

        def at(key: str, read: Callable[[Any], Any]) -> Any:
            try:
                return read(body[key])
            except DockerfileError:
                raise
            except (EngineError, ValueError, TypeError, KeyError) as error:
                hint = error.hint if isinstance(error, EngineError) else None
                raise self._error(f"services.{name}.{key}: {error}", body.lines[key], hint) from error

        values: dict[str, Any] = {}
        readers: dict[str, Callable[[Any], Any]] = {
            "container_name": self._text,
            "command": self._command,
            "entrypoint": self._command,
            "user": self._text,
            "working_dir": self._text,
            "ports": self._ports,
            "labels": self._strings,
            "stop_signal": self._text,
            "mem_limit": self._size,
            "cpus": float,
            "pids_limit": int,
            "read_only": bool,
            "tty": bool,
            "privileged": bool,
            "cap_add": tuple,
            "cap_drop": tuple,
            "depends_on": tuple,
            "volumes": self._volumes,
            "stop_grace_period": self._seconds,
        }
        names = {"mem_limit": "memory", "volumes": "mounts", "stop_grace_period": "stop_timeout"}
        for key, read in readers.items():
            if body.get(key) is not None:
                values[names.get(key, key)] = at(key, read)
        env: dict[str, str] = {}
        if body.get("env_file"):
            env |= at("env_file", self._env_file)
        if body.get("environment"):
            env |= at("environment", self._environment)
        values["env"] = tuple(f"{key}={value}" for key, value in env.items())
        return Service(name=name, image=self._text(body.get("image") or f"{project}-{name}"), build=build, **values)

    def _build(self, body: Located) -> BuildSpec:
        raw = body["build"]
        section: dict[str, Any] = {"context": raw} if isinstance(raw, str) else raw if isinstance(raw, dict) else {}
        if isinstance(raw, Located):
            for key, line in raw.lines.items():
                if key not in BUILD_SUPPORTED:
                    self._note(f"build.{key}", line)
        context = (self._file.parent / self._text(section.get("context", "."))).resolve()
        if not context.is_dir():
            raise self._error(f"the build context {context} is not a folder", body.lines["build"])
        return BuildSpec(
            context,
            context / self._text(section.get("dockerfile", "Dockerfile")),
            self._environment(section.get("args") or {}),
            self._text(section.get("target") or ""),
        )

    # --- values -----------------------------------------------------------------------------------------

    def _text(self, value: object) -> str:
        """A scalar with `${…}` replaced from the environment and `.env`."""
        if isinstance(value, bool):
            return str(value).lower()

        def replace(match: re.Match[str]) -> str:
            if match["escaped"]:
                return "$"
            name, op, word = match["name"] or match["bare"], match["op"] or "", match["word"] or ""
            found = self._env.get(name)
            is_set = found is not None and (found != "" or not op.startswith(":"))
            if op.endswith("+"):
                return word if is_set else ""
            if op.endswith("-"):
                return (found or "") if is_set else self._text(word)
            if op.endswith("?") and not is_set:
                raise InvalidInput(f"the variable {name} is not set{f': {word}' if word else ''}")
            return found or ""

        return _VARIABLE.sub(replace, str(value))

    def _strings(self, value: Any) -> dict[str, str]:
        if isinstance(value, dict):
            return {key: "" if item is None else self._text(item) for key, item in value.items()}
        return {key: item for key, _, item in (self._text(entry).partition("=") for entry in value)}

    def _environment(self, value: Any) -> dict[str, str]:
        """A variable without a value is the user's own, and is left out when that is not set."""
        pairs = (
            value.items()
            if isinstance(value, dict)
            else ((e.partition("=")[0], e.partition("=")[2] if "=" in e else None) for e in value)
        )
        return {
            key: self._text(item) if item is not None else self._env[key]
            for key, item in pairs
            if item is not None or key in self._env
        }

    def _env_file(self, value: Any) -> dict[str, str]:
        found: dict[str, str] = {}
        for entry in [value] if isinstance(value, str | dict) else value:
            path = self._file.parent / self._text(entry["path"] if isinstance(entry, dict) else entry)
            required = not isinstance(entry, dict) or entry.get("required", True)
            self._env_files.append(path)
            found |= read_env_file(path, missing_ok=not required)
        return found

    def _command(self, value: Any) -> tuple[str, ...]:
        return (
            tuple(shlex.split(self._text(value)))
            if isinstance(value, str)
            else tuple(self._text(word) for word in value)
        )

    def _size(self, value: Any) -> int:
        return value if isinstance(value, int) else parse_size(self._text(value))

    def _seconds(self, value: Any) -> int:
        parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", self._text(value))
        if not parts:
            raise InvalidInput(f"{value!r} is not a duration", hint="10s, 1m30s")
        return round(sum(float(number) * {"ms": 0.001, "s": 1, "m": 60, "h": 3600}[unit] for number, unit in parts))

    def _ports(self, value: Any) -> tuple[str, ...]:
        ports = []
        for entry in value:
            if isinstance(entry, dict):
                host, port, protocol = (
                    str(entry.get("published", entry["target"])),
                    str(entry["target"]),
                    entry.get("protocol", "tcp"),
                )
                address = str(entry.get("host_ip", ""))
            else:
                text, _, protocol = self._text(entry).partition("/")
                *rest, port = text.split(":")
                host = rest[-1] if rest else port
                address = ":".join(rest[:-1])
            if host != port or address or not port.isdigit():
                raise InvalidInput(
                    f"{entry!r}: containers share the host's network for now, so a port is published as it is",
                    hint=f'write "{port}:{port}"',
                )
            ports.append(f"{port}/{protocol or 'tcp'}")
        return tuple(ports)

    def _volumes(self, value: Any) -> tuple[Mount, ...]:
        mounts = []
        for entry in value:
            if isinstance(entry, dict):
                kind, source, target, read_only = (
                    entry.get("type"),
                    str(entry.get("source", "")),
                    str(entry["target"]),
                    bool(entry.get("read_only")),
                )
            else:
                source, _, rest = self._text(entry).partition(":")
                target, _, options = rest.partition(":")
                read_only = "ro" in options.split(",")
                kind = "bind" if source.startswith((".", "/", "~")) else "volume"
            if kind != "bind" or not target:
                raise InvalidInput(f"{entry!r}: only bind mounts so far", hint="write ./folder:/path/in/container")
            mounts.append(Mount(str((self._file.parent / os.path.expanduser(source)).resolve()), target, read_only))
        return tuple(mounts)


def read_env_file(path: Path, *, missing_ok: bool) -> dict[str, str]:
    """`KEY=value` lines; quotes around a value go, `#` begins a comment line. Raises `InvalidInput`."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise InvalidInput(f"env file {path} does not exist") from None
    values = {}
    for line in text.splitlines():
        key, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not key.startswith("#"):
            value = value.strip()
            quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
            values[key.strip()] = value[1:-1] if quoted else value
    return values
