"""What was asked for, as a container's record keeps it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from engine.model import (
    ContainerSpec,
    Device,
    DeviceLimit,
    Healthcheck,
    LogConfig,
    Mount,
    PortBinding,
    RestartPolicy,
    Ulimit,
)
from engine.service.endpoints import endpoint_settings

_NESTED: dict[str, Any] = {
    "mounts": Mount,
    "devices": Device,
    "ulimits": Ulimit,
    "blkio_weight_device": DeviceLimit,
    "blkio_device_read_bps": DeviceLimit,
    "blkio_device_write_bps": DeviceLimit,
    "blkio_device_read_iops": DeviceLimit,
    "blkio_device_write_iops": DeviceLimit,
}


_NAMES = tuple(entry.name for entry in dataclasses.fields(ContainerSpec))
_KNOWN = frozenset(_NAMES)


def spec_to_json(spec: ContainerSpec) -> dict[str, Any]:
    """As it is recorded: `dataclasses.asdict`, which copies each number and string of a hundred fields one by one."""
    return {name: _plain(getattr(spec, name)) for name in _NAMES}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        return {key: _plain(each) for key, each in value.items()}
    return dataclasses.asdict(value)


def spec_from_json(document: dict[str, Any]) -> ContainerSpec:
    """A recorded spec; fields that a later version does not know are left out."""
    values: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in document.items() if key in _KNOWN
    }
    values["restart_policy"] = RestartPolicy(**document.get("restart_policy", {}))
    values["log_config"] = LogConfig(**document.get("log_config", {}))
    if check := document.get("healthcheck"):
        values["healthcheck"] = Healthcheck(**{**check, "test": tuple(check["test"])})
    for key, kind in _NESTED.items():
        values[key] = tuple(kind(**entry) for entry in document.get(key, ()))
    values["port_bindings"] = {
        port: tuple(PortBinding(**each) for each in found) for port, found in document.get("port_bindings", {}).items()
    }
    values["networks"] = {name: endpoint_settings(each) for name, each in document.get("networks", {}).items()}
    return ContainerSpec(**values)
