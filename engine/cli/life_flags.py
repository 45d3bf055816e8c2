"""The flags of `run` and `create` for how a container lives: restarts, health, logs, streams, its end."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.build.dockerfile.durations import parse_duration
from engine.cli.flags import Flag, Parsed
from engine.errors import InvalidInput
from engine.model import Healthcheck, LogConfig, RestartPolicy
from engine.service.life_config import parse_restart

LIFE_FLAGS = [
    Flag("restart", "Restart policy: no, on-failure[:max-retries], always, unless-stopped", kind="str"),
    Flag("health-cmd", "Command to run to check health", kind="str"),
    Flag("health-interval", "Time between running the check (ms|s|m|h)", kind="str", metavar="duration"),
    Flag("health-timeout", "Maximum time to allow one check to run (ms|s|m|h)", kind="str", metavar="duration"),
    Flag("health-start-period", "Start period before failures count (ms|s|m|h)", kind="str", metavar="duration"),
    Flag("health-start-interval", "Time between checks during the start period", kind="str", metavar="duration"),
    Flag("health-retries", "Consecutive failures needed to report unhealthy", kind="int"),
    Flag("no-healthcheck", "Disable any container-specified HEALTHCHECK"),
    Flag("log-driver", "Logging driver: json-file, local, none", kind="str"),
    Flag("log-opt", "Log driver options: max-size, max-file, compress, labels, env, tag", kind="list"),
    Flag("attach", "Attach to STDIN, STDOUT or STDERR", "a", kind="list"),
    Flag("stop-signal", "Signal to stop the container", kind="str"),
    Flag("stop-timeout", "Timeout (in seconds) to stop a container", kind="int"),
    Flag("cidfile", "Write the container ID to the file", kind="str"),
]
RUN_ONLY_FLAGS = [
    Flag("detach-keys", "Override the key sequence for detaching a container", kind="str"),
    Flag("sig-proxy", "Proxy received signals to the process (default true)"),
]
_STREAMS = {"stdin", "stdout", "stderr"}


def life_fields(parsed: Parsed, *, detached: bool) -> dict[str, Any]:
    """The fields of ContainerSpec. `detached`: nobody attaches at the start. Raises InvalidInput."""
    streams = attached(parsed)
    interactive = parsed.on("interactive")
    stdin = "stdin" in streams if streams else interactive and not detached
    return {
        "restart_policy": parse_restart(parsed.text("restart")) if parsed.text("restart") else RestartPolicy(),
        "healthcheck": _healthcheck(parsed),
        "log_config": LogConfig(parsed.text("log-driver"), _options(parsed.items("log-opt"))),
        "stop_signal": parsed.text("stop-signal"),
        "stop_timeout": parsed.number("stop-timeout") if parsed.given("stop-timeout") else None,
        "stdin_once": stdin and interactive,
        "attach_stdin": stdin,
        "attach_stdout": "stdout" in streams if streams else not detached,
        "attach_stderr": "stderr" in streams if streams else not detached,
    }


def attached(parsed: Parsed) -> set[str]:
    """`-a`; empty: all. Raises InvalidInput."""
    streams = {text.lower() for text in parsed.items("attach")}
    if unknown := streams - _STREAMS:
        raise InvalidInput(f"invalid argument {unknown.pop()!r} for -a: valid streams are STDIN, STDOUT and STDERR")
    if streams and parsed.on("detach"):
        raise InvalidInput("conflicting options: cannot specify both --attach and --detach")
    return streams


def _options(texts: list[str]) -> dict[str, str]:
    options = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals:
            raise InvalidInput(f"invalid argument {text!r} for --log-opt: it is name=value")
        options[name] = value
    return options


def duration(parsed: Parsed, flag: str) -> int:
    """Nanoseconds; 0 when it was not given."""
    if not parsed.given(flag):
        return 0
    text = parsed.text(flag)
    try:
        value = parse_duration(text)
    except ValueError:
        raise InvalidInput(
            f"invalid argument {text!r} for --{flag}: it is no duration", hint="30s, 1m30s, 500ms"
        ) from None
    if value < 0:
        raise InvalidInput(f"--{flag} cannot be negative")
    return value


def _healthcheck(parsed: Parsed) -> Healthcheck | None:
    names = ("health-cmd", "health-interval", "health-timeout", "health-start-period", "health-start-interval")
    given = any(parsed.given(name) for name in (*names, "health-retries"))
    if parsed.on("no-healthcheck"):
        if given:
            raise InvalidInput("--no-healthcheck conflicts with --health-* options")
        return Healthcheck(("NONE",))
    if not given:
        return None
    if parsed.given("health-retries") and parsed.number("health-retries") < 0:
        raise InvalidInput("--health-retries cannot be negative")
    command = parsed.text("health-cmd")
    return Healthcheck(
        ("CMD-SHELL", command) if command else (),
        interval=duration(parsed, "health-interval"),
        timeout=duration(parsed, "health-timeout"),
        start_period=duration(parsed, "health-start-period"),
        start_interval=duration(parsed, "health-start-interval"),
        retries=parsed.number("health-retries"),
    )


@contextlib.contextmanager
def cidfile(parsed: Parsed) -> Iterator[Any]:
    """Made before the container, so that two never share one; gone again when no id was written. Yields a function
    that writes the id."""
    if not parsed.given("cidfile"):
        yield lambda container_id: None
        return
    path = Path(parsed.text("cidfile"))
    try:
        file = open(path, "x", encoding="ascii")  # noqa: SIM115
    except FileExistsError:
        raise InvalidInput(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from None
    try:
        with file:
            yield file.write
    finally:
        if os.path.getsize(path) == 0:
            path.unlink()
