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
from engine.model import EndpointSettings, IpamConfig, Mount, NetworkSpec, PortBinding
from engine.network.files import parse_extra_host
from engine.network.ports import collect, parse_expose, parse_publish
from engine.project.model import BuildSpec, Project, ProjectNetwork, Service

_VARIABLE = re.compile(
    r"\$(?:(?P<escaped>\$)|\{(?P<name>[A-Za-z_]\w*)(?:(?P<op>:?[-+?])(?P<word>[^}]*))?\}|(?P<bare>[A-Za-z_]\w*))"
)
SUPPORTED = frozenset(
    "build image command entrypoint environment env_file ports working_dir user volumes labels container_name depends_on stop_signal "
    "stop_grace_period mem_limit cpus pids_limit read_only tty privileged cap_add cap_drop "
    "networks network_mode hostname domainname dns dns_search dns_opt extra_hosts mac_address expose".split()
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
            if key not in ("services", "name", "version", "networks") and not key.startswith("x-"):
                self._note(key, line)
        name = self._text(document.get("name") or self._default_name)
        services = document["services"]
        found = {key: self._service(name, key, value, services.lines[key]) for key, value in services.items()}
        networks = self._networks(document, name)
        for service in found.values():
            self._check_networks(service, found, networks, services.lines[service.name])
        return Project(
            name,
            self._file.parent,
            self._file,
            self._ordered(found, services),
            tuple(self._notes),
            tuple(self._env_files),
            networks,
        )

    def _check_networks(
        self, service: Service, services: Mapping[str, Service], networks: Mapping[str, ProjectNetwork], line: int
    ) -> None:
        where = f"service {service.name!r}"
        for name in service.networks:
            if name not in networks:
                raise self._error(f"{where} refers to undefined network {name}", line)
        if service.network_mode and service.networks:
            raise self._error(f"{where} declares mutually exclusive `network_mode` and `networks`", line)
        kind, _, other = service.network_mode.partition(":")
        if kind == "service" and other not in services:
            raise self._error(f"{where} shares the network of {other!r}, which is not there", line)

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
            shared = services[name].network_mode.partition("service:")[2]
            for need in (*services[name].depends_on, *([shared] if shared else [])):
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
            "expose": self._expose,
            "networks": self._on_networks,
            "network_mode": self._text,
            "hostname": self._text,
            "domainname": self._text,
            "dns": self._texts,
            "dns_search": self._texts,
            "dns_opt": self._texts,
            "extra_hosts": self._hosts,
            "mac_address": self._text,
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
        names = {
            "mem_limit": "memory",
            "volumes": "mounts",
            "stop_grace_period": "stop_timeout",
            "ports": "port_bindings",
            "expose": "exposed_ports",
            "dns_opt": "dns_options",
        }
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

    def _ports(self, value: Any) -> dict[str, tuple[PortBinding, ...]]:
        found: list[tuple[str, PortBinding]] = []
        for entry in value:
            if not isinstance(entry, dict):
                found += parse_publish(self._text(entry))
                continue
            target, published = self._text(entry["target"]), self._text(entry.get("published", ""))
            protocol, address = self._text(entry.get("protocol", "tcp")), self._text(entry.get("host_ip", ""))
            outside = f"[{address}]:{published}:" if address else f"{published}:" if published else ""
            found += parse_publish(f"{outside}{target}/{protocol}")
        return collect(found)

    def _expose(self, value: Any) -> tuple[str, ...]:
        return tuple(port for entry in value for port in parse_expose(self._text(entry)))

    def _texts(self, value: Any) -> tuple[str, ...]:
        """A list of scalars, or one scalar."""
        return tuple(map(self._text, value)) if isinstance(value, list) else (self._text(value),)

    def _hosts(self, value: Any) -> tuple[str, ...]:
        if isinstance(value, dict):
            pairs = [f"{name}:{self._text(address)}" for name, one in value.items() for address in _listed(one)]
        else:
            pairs = [self._text(entry).replace("=", ":", 1) for entry in value]
        for text in pairs:
            parse_extra_host(text)
        return tuple(pairs)

    def _on_networks(self, value: Any) -> dict[str, EndpointSettings]:
        """A service's `networks`: names, or names with settings."""
        if isinstance(value, list):
            return {self._text(name): EndpointSettings() for name in value}
        found = {}
        for name, settings in value.items():
            known = settings or {}
            unknown = set(known) - {"aliases", "ipv4_address", "ipv6_address", "mac_address", "priority", "gw_priority"}
            if unknown:
                raise InvalidInput(f"network {name}: {sorted(unknown)[0]} is not supported")
            found[name] = EndpointSettings(
                tuple(map(self._text, known.get("aliases", ()))),
                self._text(known.get("ipv4_address", "")),
                self._text(known.get("ipv6_address", "")),
                self._text(known.get("mac_address", "")),
            )
        return found

    def _networks(self, document: Located, project: str) -> dict[str, ProjectNetwork]:
        """The project's networks: those of the file, and `default` for services that name none."""
        section = document.get("networks") or Located()
        found = {}
        for name, body in section.items():
            try:
                found[name] = self._network(project, name, body or {})
            except (EngineError, ValueError, TypeError, KeyError, AttributeError) as error:
                raise self._error(f"networks.{name}: {error}", section.lines.get(name, 1)) from error
        found.setdefault("default", self._network(project, "default", {}))
        return found

    def _network(self, project: str, name: str, body: dict[str, Any]) -> ProjectNetwork:
        external = bool(body.get("external"))
        known = {"name", "driver", "driver_opts", "external", "internal", "attachable", "enable_ipv6", "ipam", "labels"}
        if isinstance(body, Located):
            for key, line in body.lines.items():
                if key not in known and not key.startswith("x-"):
                    self._note(f"networks.{name}.{key}", line)
        shown = self._text(body.get("name") or (name if external else f"{project}_{name}"))
        if external:
            return ProjectNetwork(NetworkSpec(shown), external=True)
        pools = tuple(
            IpamConfig(
                self._text(pool.get("subnet", "")),
                self._text(pool.get("gateway", "")),
                self._text(pool.get("ip_range", "")),
                self._strings(pool.get("aux_addresses") or {}),
            )
            for pool in (body.get("ipam") or {}).get("config") or ()
        )
        labels = {"com.docker.compose.project": project, "com.docker.compose.network": name}
        return ProjectNetwork(
            NetworkSpec(
                shown,
                self._text(body.get("driver") or "bridge"),
                bool(body.get("internal")),
                bool(body.get("attachable")),
                bool(body.get("enable_ipv6")),
                pools,
                self._strings(body.get("driver_opts") or {}),
                {**self._strings(body.get("labels") or {}), **labels},
            )
        )

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


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


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
