"""Restart policy, health check and log options: checked as Docker checks them, and as a container's monitor reads them.

Pure. The monitor's section is `life` of the runtime configuration: it acts on it without any engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.units import parse_size
from engine.errors import InvalidInput
from engine.model import ContainerSpec, Healthcheck, LogConfig, RestartPolicy

POLICIES = ("no", "always", "unless-stopped", "on-failure")
LOG_DRIVERS = ("json-file", "local", "none")
_LOCAL = {"max-size": "20m", "max-file": "5"}  # what `local` has where nothing is said
_LOG_OPTIONS = {
    "max-size", "max-file", "compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size",
}  # fmt: skip
_MILLISECOND = 1_000_000
_TEMPLATE = re.compile(r"\{\{\s*(.*?)\s*\}\}")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a log's tag and attributes may name."""

    id: str
    name: str
    image: str
    image_id: str
    command: Sequence[str]
    env: Sequence[str]
    labels: Mapping[str, str]


def check(spec: ContainerSpec) -> None:
    """Raises InvalidInput with Docker's reasons."""
    _check_restart(spec.restart_policy, auto_remove=spec.auto_remove)
    if spec.healthcheck is not None:
        _check_health(spec.healthcheck)
    log_options(spec.log_config)


def parse_restart(text: str) -> RestartPolicy:
    """`--restart`: no, always, unless-stopped, on-failure, on-failure:5. Raises InvalidInput."""
    name, colon, count = text.partition(":")
    if colon and not count.lstrip("-").isdigit():
        raise InvalidInput(f"invalid restart policy format: {text!r}: the maximum retry count must be an integer")
    policy = RestartPolicy(name, int(count) if colon else 0)
    _check_restart(policy, auto_remove=False)
    return policy


def _check_restart(policy: RestartPolicy, *, auto_remove: bool) -> None:
    if policy.name not in ("", *POLICIES):
        raise InvalidInput(f"invalid restart policy {policy.name!r}", hint=f"one of {', '.join(POLICIES)}")
    if policy.maximum_retry_count < 0:
        raise InvalidInput("maximum retry count cannot be negative")
    if policy.maximum_retry_count and policy.name != "on-failure":
        raise InvalidInput(f"maximum retry count cannot be used with restart policy {policy.name!r}")
    if auto_remove and policy.name not in ("", "no"):
        raise InvalidInput("conflicting options: cannot specify both --restart and --rm")


def _check_health(check: Healthcheck) -> None:
    names = {
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
    }
    for name, value in names.items():
        if value < 0 or 0 < value < _MILLISECOND:
            raise InvalidInput(f"{name} in Healthcheck cannot be less than 1ms")
    if check.retries < 0:
        raise InvalidInput("Retries in Healthcheck cannot be negative")
    if check.test and check.test[0] not in ("NONE", "CMD", "CMD-SHELL"):
        raise InvalidInput(f"unknown type {check.test[0]!r} in Healthcheck", hint="NONE, CMD or CMD-SHELL")


def merge_healthcheck(given: Healthcheck | None, image: Mapping[str, Any] | None) -> Healthcheck | None:
    """What is set wins field by field over the image's HEALTHCHECK. None: there is none."""
    inherited = image or {}

    def number(name: str) -> int:
        return int(inherited.get(name) or 0)

    base = Healthcheck(
        tuple(inherited.get("Test") or ()),
        number("Interval"),
        number("Timeout"),
        number("StartPeriod"),
        number("StartInterval"),
        number("Retries"),
    )
    given = given or Healthcheck()
    if given.test == ("NONE",):
        return Healthcheck(("NONE",))
    merged = Healthcheck(
        given.test or base.test,
        given.interval or base.interval,
        given.timeout or base.timeout,
        given.start_period or base.start_period,
        given.start_interval or base.start_interval,
        given.retries or base.retries,
    )
    return merged if merged.test else None


def health_json(check: Healthcheck | None) -> dict[str, Any] | None:
    """Docker's Config.Healthcheck: only what is set."""
    if check is None:
        return None
    values = {
        "Test": list(check.test),
        "Interval": check.interval,
        "Timeout": check.timeout,
        "StartPeriod": check.start_period,
        "StartInterval": check.start_interval,
        "Retries": check.retries,
    }
    return {key: value for key, value in values.items() if value}


def _probe(check: Healthcheck | None, shell: Sequence[str]) -> dict[str, Any] | None:
    if check is None or not check.test or check.test[0] == "NONE":
        return None
    words = check.test[1:]
    return {
        "args": [*shell, *words] if check.test[0] == "CMD-SHELL" else list(words),
        "interval": check.interval,
        "timeout": check.timeout,
        "start_period": check.start_period,
        "start_interval": check.start_interval,
        "retries": check.retries,
    }


# --- log options ------------------------------------------------------------------------------------------


def log_options(config: LogConfig) -> dict[str, Any]:
    """`{"type", "max_size", "max_files", "compress"}`, and `{"mode", "max_buffer_size"}` (bytes, 0: the default) of one
    that does not block. `local` is Docker's name for a rotated, compressed log: here in the same form. Raises InvalidInput with Docker's reasons."""
    driver = config.type or "json-file"
    if driver not in LOG_DRIVERS:
        raise InvalidInput(
            f"logger: no log driver named {driver!r} is registered"
        )  # docker-py compares it to the letter
    for name in config.config:
        if name not in _LOG_OPTIONS:
            raise InvalidInput(f"unknown log opt {name!r} for {driver} log driver")
    if driver == "none":
        return {"type": "none"}
    options = {**(_LOCAL if driver == "local" else {}), **config.config}
    mode, buffer = options.get("mode") or "blocking", 0
    if mode not in ("blocking", "non-blocking"):
        raise InvalidInput(f"logger: logging mode not supported: {mode}", hint="blocking or non-blocking")
    if "max-buffer-size" in options:
        if mode != "non-blocking":
            raise InvalidInput("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        buffer = parse_size(options["max-buffer-size"])
    size = parse_size(options["max-size"]) if options.get("max-size") else 0
    if "max-size" in options and size <= 0:
        raise InvalidInput("max-size must be a positive number")
    files = _count(options.get("max-file", "1"))
    compress = _boolean(options.get("compress", "false"))
    if driver == "local" and "compress" not in config.config:
        compress = files > 1
    if compress and (files < 2 or not size):
        raise InvalidInput("compress cannot be true when max-file is less than 2 or max-size is not set")
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(name, ""))
        except re.error as error:
            raise InvalidInput(f"log opt {name}: {error}") from None
    _tag(options.get("tag", ""), None)
    found: dict[str, Any] = {"type": driver, "max_size": size, "max_files": files, "compress": compress}
    return found | ({"mode": mode, "max_buffer_size": buffer} if mode == "non-blocking" else {})


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise InvalidInput(f"max-file={text}: it cannot be less than 1")
    return int(text)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "t", "f"):
        raise InvalidInput(f"compress={text}: it is true or false")
    return text.lower() in ("true", "1", "t")


def log_attributes(config: LogConfig, who: Identity) -> dict[str, str]:
    """What `logs --details` shows: chosen labels and variables, and the tag."""
    options, found = config.config, {}
    env = dict(entry.partition("=")[::2] for entry in who.env)
    for option, values in (("labels", who.labels), ("env", env)):
        for name in options.get(option, "").split(","):
            if name in values:
                found[name] = values[name]
        if pattern := options.get(f"{option}-regex"):
            found.update({name: value for name, value in values.items() if re.search(pattern, name)})
    if options.get("tag"):
        found["tag"] = _tag(options["tag"], who)
    return found


def _tag(template: str, who: Identity | None) -> str:
    """Docker's log tag: text with {{.ID}}, {{.FullID}}, {{.Name}}, {{.ImageID}}, {{.ImageFullID}}, {{.ImageName}},
    {{.DaemonName}}, {{.Command}}. Raises InvalidInput on others."""
    short = who.image_id.removeprefix("sha256:")[:12] if who else ""
    values = {
        ".ID": who.id[:12] if who else "",
        ".FullID": who.id if who else "",
        ".Name": who.name if who else "",
        ".ImageID": short,
        ".ImageFullID": who.image_id if who else "",
        ".ImageName": who.image if who else "",
        ".DaemonName": "docker",
        ".Command": " ".join(who.command) if who else "",
    }

    def replace(match: re.Match[str]) -> str:
        if match[1] not in values:
            raise InvalidInput(f"log opt tag: {match[0]} is not known", hint=f"known: {', '.join(values)}")
        return values[match[1]]

    return _TEMPLATE.sub(replace, template)


def section(
    spec: ContainerSpec,
    who: Identity,
    *,
    healthcheck: Healthcheck | None,
    shell: Sequence[str],
    stop_signal: int,
    remover: Sequence[str],
) -> dict[str, Any]:
    """What the monitor does by itself. `remover` is the command that removes the container after its end."""
    policy = spec.restart_policy
    return {
        "restart_policy": {"name": policy.name or "no", "maximum_retry_count": policy.maximum_retry_count},
        "healthcheck": _probe(healthcheck, shell),
        "log_config": {**log_options(spec.log_config), "attributes": log_attributes(spec.log_config, who)},
        "stop_signal": stop_signal,
        "stdin_once": spec.stdin_once,
        "remover": list(remover) if spec.auto_remove else [],
    }
