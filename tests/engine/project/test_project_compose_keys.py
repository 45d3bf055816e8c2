"""Every key of the published compose schema is acted on, named by its place, or refused. None is dropped in silence.

The schema is walked; for each key a file with it and one without it are read. What the engine is to do must differ, or a note or an
error must name the key and its line.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine.errors import DockerfileError
from engine.project.compose.project import load_compose
from engine.project.compose.validate import schema
from engine.project.model import Project

Path_ = tuple[str, ...]

# A value that means something, by path ("*" stands for an item of a list or mapping).
SAMPLES: dict[str, Any] = {
    "attach": False,
    "build.secrets.*.source": "other",
    "credential_spec": {"file": "x"},
    "deploy.placement": {"constraints": ["a==b"]},
    "deploy.rollback_config": {"parallelism": 1},
    "deploy.update_config": {"parallelism": 1},
    "build.cache_from": ["type=local,src=cache"],
    "build.cache_to": ["type=local,dest=cache"],
    "build.dockerfile_inline": "FROM scratch",
    "build.additional_contexts": {"other": "./more"},
    "build.entitlements": ["network.host"],
    "build.extra_hosts": {"a": "10.0.0.1"},
    "build.secrets": ["key"],
    "build.ssh": ["default=agent"],
    "build.ulimits": {"nofile": 7},
    "build.platforms": ["linux/arm64"],
    "build.context": "./more",
    "build.provenance": True,
    "build.sbom": True,
    "blkio_config.weight": 20,
    "blkio_config.weight_device": [{"path": "/dev/null", "weight": 20}],
    "cgroup": "host",
    "configs": ["note"],
    "configs.*.uid": "5",
    "configs.*.gid": "5",
    "configs.*.mode": 0o400,
    "configs.*.source": "other",
    "secrets.*.uid": "5",
    "secrets.*.gid": "5",
    "secrets.*.mode": 0o400,
    "secrets.*.source": "other",
    "depends_on": ["db"],
    "depends_on.*.condition": "service_healthy",
    "depends_on.*.required": False,
    "depends_on.*.restart": True,
    "deploy.mode": "replicated-job",
    "deploy.replicas": 3,
    "deploy.labels": {"a": "b"},
    "deploy.endpoint_mode": "vip",
    "deploy.resources.limits.cpus": "0.5",
    "deploy.resources.limits.memory": "32M",
    "deploy.resources.reservations.memory": "16M",
    "deploy.resources.reservations.devices": [{"capabilities": ["gpu"]}],
    "deploy.resources.reservations.generic_resources": [{"discrete_resource_spec": {"kind": "a", "value": 1}}],
    "deploy.restart_policy.condition": "none",
    "deploy.restart_policy.max_attempts": 4,
    "develop.watch": [{"path": ".", "action": "rebuild"}],
    "develop.watch.*.action": "restart",
    "develop.watch.*.path": "./more",
    "develop.watch.*.initial_sync": True,
    "develop.watch.*.exec.command": "true",
    "devices": ["/dev/null"],
    "devices.*.source": "/dev/zero",
    "dns": "1.1.1.1",
    "env_file": "more.env",
    "env_file.*.path": "even.env",
    "env_file.*.format": "raw",
    "env_file.*.required": "x",
    "expose": ["99"],
    "extends": {"service": "db"},
    "external_links": ["else:alias"],
    "extra_hosts": {"a": "10.0.0.1"},
    "gpus": "all",
    "healthcheck.disable": True,
    "healthcheck.test": "other",
    "image": "other",
    "ipc": "host",
    "label_file": "more.labels",
    "links": ["db:alias"],
    "logging.driver": "none",
    "mac_address": "02:42:ac:11:00:02",
    "models": ["m"],
    "network_mode": "none",
    "networks": ["back"],
    "networks.*.priority": 5,
    "networks.*.gw_priority": 5,
    "networks.*.ipv4_address": "10.9.0.5",
    "networks.*.mac_address": "02:42:ac:11:00:02",
    "pid": "host",
    "ports": ["8080:80"],
    "ports.*.target": 81,
    "ports.*.protocol": "udp",
    "ports.*.host_ip": "127.0.0.1",
    "ports.*.mode": "other",
    "profiles": ["debug"],
    "provider": {"type": "x"},
    "pull_policy": "always",
    "pull_refresh_after": "1d",
    "restart": "always",
    "scale": 2,
    "secrets": ["key"],
    "storage_opt": {"size": "1G"},
    "ulimits": {"nofile": 7},
    "userns_mode": "host",
    "uts": "host",
    "volumes": ["data:/data"],
    "volumes.*.type": "volume",
    "volumes.*.bind.propagation": "rshared",
    "volumes.*.bind.create_host_path": False,
    "volumes.*.bind.recursive": "disabled",
    "volumes.*.bind.selinux": "Z",
    "volumes_from": ["db"],
    "blkio_config.device_read_bps": [{"path": "/dev/null", "rate": "1m"}],
    "blkio_config.device_read_iops": [{"path": "/dev/null", "rate": 10}],
    "blkio_config.device_write_bps": [{"path": "/dev/null", "rate": "1m"}],
    "blkio_config.device_write_iops": [{"path": "/dev/null", "rate": 10}],
}
# What has to be there for the key to mean anything: the objects around it, without the key itself.
AROUND: dict[str, Any] = {
    "build.secrets.*": {"source": "key"},
    "configs.*": {"source": "note"},
    "secrets.*": {"source": "key"},
    "env_file.*": {"path": "more.env"},
    "devices.*": {"source": "/dev/null"},
    "depends_on.*": {"condition": "service_started"},
    "develop.watch.*": {"path": ".", "action": "sync", "target": "/t"},
    "develop.watch.*.exec": {"command": "false"},
    "networks.*": {},
    "ports.*": {"target": 80},
    "volumes.*": {"type": "bind", "source": ".", "target": "/t"},
    "volumes.*.volume": {},
    "volumes.*.image": {},
    "volumes.*.tmpfs": {},
    "post_start.*": {"command": "true"},
    "pre_stop.*": {"command": "true"},
    "provider": {"type": "x"},
    "deploy.restart_policy": {"condition": "on-failure"},
    "healthcheck": {"test": "true"},
    "blkio_config": {},
}
# Says nothing that one machine, or Linux, could do otherwise: named by the specification as informational.
SAYS_NOTHING = {
    "ports.*.name",
    "ports.*.app_protocol",
    "volumes.*.consistency",  # "platform specific": Linux has one
    "annotations",
}
MOUNTS = {
    "volume": {"type": "volume", "source": "data"},
    "image": {"type": "image", "source": "i"},
    "tmpfs": {"type": "tmpfs"},
}


def resolve(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        node = schema()["definitions"][node["$ref"].rpartition("/")[2]]
    return node


def walk(node: dict[str, Any], path: Path_ = ()) -> Iterator[tuple[Path_, dict[str, Any]]]:
    """Every key below `node`, with its own schema; lists and mappings by name as "*"."""
    node = resolve(node)
    for choice in [node, *map(resolve, node.get("oneOf", ()))]:
        for key, inner in choice.get("properties", {}).items():
            yield (*path, key), inner
            yield from walk(inner, (*path, key))
        if isinstance(choice.get("items"), dict):
            yield from walk(choice["items"], (*path, "*"))
        for pattern, inner in choice.get("patternProperties", {}).items():
            if pattern != "^x-" and isinstance(inner, dict):
                yield from walk(inner, (*path, "*"))


def sample(path: Path_, node: dict[str, Any]) -> Any:
    name = ".".join(path)
    if name in SAMPLES:
        return SAMPLES[name]
    node = resolve(node)
    choices = [node, *map(resolve, node.get("oneOf", ()))]
    kinds = [kind for c in choices for kind in (c["type"] if isinstance(c.get("type"), list) else [c.get("type")])]
    for choice in choices:
        if "enum" in choice:
            return choice["enum"][-1]
    if "boolean" in kinds:
        return True
    if "integer" in kinds or "number" in kinds:
        return 7
    if path[-1] in (
        "interval",
        "timeout",
        "start_period",
        "start_interval",
        "stop_grace_period",
        "delay",
        "window",
        "monitor",
    ):
        return "7s"
    if path[-1] in ("memory", "mem_limit", "memswap_limit", "mem_reservation", "shm_size", "size"):
        return "64m"
    if "string" in kinds and "array" not in kinds:
        return "thing"
    if "array" in kinds and "object" not in kinds:
        return ["thing"]
    return {"thing": "value"}


# Taken as one thing: all that is in them is read together, or left out together.
WHOLE = (
    "build.ulimits",
    "credential_spec",
    "deploy.placement",
    "deploy.resources.reservations.devices",
    "deploy.resources.reservations.generic_resources",
    "deploy.rollback_config",
    "deploy.update_config",
    "extends",
    "gpus",
    "models",
    "provider",
    "storage_opt",
    "ulimits",
    *(f"blkio_config.{name}" for name in ("weight_device", "device_read_bps", "device_read_iops")),
    *(f"blkio_config.{name}" for name in ("device_write_bps", "device_write_iops")),
)


def leaves() -> list[tuple[Path_, dict[str, Any]]]:
    found = dict(walk(schema()["definitions"]["service"]))
    kept = {}
    for path, node in found.items():
        name = ".".join(path)
        if any(name.startswith(f"{whole}.") for whole in WHOLE):
            continue
        inner = any(other[: len(path)] == path and other != path for other in found)
        if name in WHOLE or name in SAMPLES or not inner:
            kept[path] = node
    return sorted(kept.items())


KEYS = leaves()


def around(path: Path_) -> Any:
    """The objects around a key, from the outermost in."""
    return AROUND.get(".".join(path), {})


def place(service: dict[str, Any], path: Path_, value: Any, *, present: bool) -> None:
    """Puts the key into a service, with what has to stand around it."""
    at: Any = service
    for depth, part in enumerate(path[:-1]):
        here = path[: depth + 1]
        following = path[depth + 1]
        default: Any = dict(around(here))
        if following == "*":
            item = dict(around((*here, "*")))
            mapping = here[-1] in ("networks", "depends_on")
            default = {"back" if here[-1] == "networks" else "db": item} if mapping else [item]
        if part == "*":
            at = next(iter(at.values())) if isinstance(at, dict) else at[0]
            continue
        if part not in at:
            at[part] = default
        at = at[part]
    if path[-1] == "*":
        return
    if path[0] == "volumes" and len(path) > 2 and path[2] in MOUNTS and path[:3] == ("volumes", "*", path[2]):
        service["volumes"][0].update({"source": None, **MOUNTS[path[2]]})
        service["volumes"][0] = {k: v for k, v in service["volumes"][0].items() if v is not None}
        at = service["volumes"][0].setdefault(path[2], {})
    if path[:3] == ("develop", "watch", "*"):
        rule = service["develop"]["watch"][0]
        if "exec" in path:
            rule["action"] = "sync+exec"
            rule.setdefault("exec", {"command": "false"})
            at = rule["exec"] if path[-1] != "exec" else rule
    if present:
        at[path[-1]] = value


def document(path: Path_, value: Any, *, present: bool) -> dict[str, Any]:
    service: dict[str, Any] = {"image": "i"}
    if path[0] in ("build", "develop"):
        service = {"build": {"context": "."}}
    if path == ("pull_refresh_after",):
        service["pull_policy"] = "refresh" if present else "missing"
    place(service, path, value, present=present)
    return {
        "services": {"a": service, "db": {"image": "db", "command": "x"}},
        "networks": {"back": {}},
        "volumes": {"data": {}},
        "secrets": {"key": {"file": "key"}, "other": {"file": "more.env"}},
        "configs": {"note": {"content": "x"}, "other": {"content": "y"}},
        "models": {"m": {"model": "x"}},
    }


def read(folder: Path, content: dict[str, Any]) -> Project:
    for name in ("key", "more.env", "even.env", "agent", "more.labels"):
        (folder / name).write_text("A='1'\n" if name == "more.env" else "B=2\n")
    (folder / "more").mkdir(exist_ok=True)
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "compose.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    return load_compose([folder / "compose.yaml"], "p")


def refusal(folder: Path, content: dict[str, Any]) -> Project | DockerfileError:
    try:
        return read(folder, content)
    except DockerfileError as error:
        return error


def meaning(project: Project) -> Project:
    """What the engine does about it: everything but the text and the notes."""
    return dataclasses.replace(project, document={}, notes=())


@pytest.mark.parametrize(("path", "node"), KEYS, ids=[".".join(path) for path, _ in KEYS])
def test_no_key_is_dropped(tmp_path: Path, path: Path_, node: dict[str, Any]) -> None:
    name = ".".join(path)
    if name in SAYS_NOTHING:
        read(tmp_path, document(path, sample(path, node), present=True))
        return
    without = read(tmp_path, document(path, None, present=False))
    found = refusal(tmp_path, document(path, sample(path, node), present=True))
    if isinstance(found, DockerfileError):
        assert found.line > 1, "an error names the line"
        assert path[-1] in str(found) or path[0] in str(found), str(found)
        return
    new_notes = [note for note in found.notes if note not in without.notes]
    named = [note for note in new_notes if "compose.yaml:" in note and (path[-1] in note or path[0] in note)]
    assert named or meaning(found) != meaning(without), f"{name} is dropped in silence"


def test_the_whole_schema_was_walked() -> None:
    names = {".".join(path) for path, _ in KEYS}
    assert {"build.target", "deploy.resources.limits.pids", "develop.watch.*.ignore", "ports.*.published"} <= names
    assert len(names) > 200


@pytest.mark.parametrize("section", ["networks", "volumes", "secrets", "configs"])
def test_no_key_of_the_other_sections_is_dropped(tmp_path: Path, section: str) -> None:
    special: dict[str, Any] = {
        "external": True,
        "ipam": {"config": [{"subnet": "10.8.0.0/24"}]},
        "environment": "HOME",
        "content": "new",
        "file": "even.env",
        "driver_opts": {"a": "b"},
        "enable_ipv4": False,
    }
    use: dict[str, Any] = {
        "networks": {"networks": ["x"]},
        "volumes": {"volumes": ["x:/x"]},
        "secrets": {"secrets": ["x"]},
        "configs": {"configs": ["x"]},
    }
    base: dict[str, Any] = {"file": "key"} if section in ("secrets", "configs") else {}
    for key, node in resolve(schema()["definitions"][section[:-1]])["properties"].items():
        body = base if key not in ("content", "environment") else {}
        content = {"services": {"a": {"image": "i", **use[section]}}}
        without = read(tmp_path, {**content, section: {"x": base}})
        value = special.get(key, sample((key,), node))
        found = refusal(tmp_path, {**content, section: {"x": {**body, key: value}}})
        if isinstance(found, DockerfileError):
            assert found.line > 1
            continue
        named = [note for note in found.notes if key in note and "compose.yaml:" in note]
        assert named or meaning(found) != meaning(without), f"{section}.{key} is dropped in silence"
