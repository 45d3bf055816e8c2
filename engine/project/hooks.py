"""Commands of a service's own that run in its container: after it started, before it stops, after a sync."""

from __future__ import annotations

from collections.abc import Sequence

from engine.api import Engine, ExecSpec
from engine.errors import EngineError, StartFailed
from engine.project.model import Hook

_MOST = 65536  # bytes of output that are kept


async def run_hook(engine: Engine, container: str, hook: Hook, log_path: str) -> int:
    """Its exit code; what it says goes into the container's log. Raises `StartFailed` when it cannot run."""
    spec = ExecSpec(
        hook.command, hook.environment, hook.user or None, hook.working_dir or None, privileged=hook.privileged
    )
    stream = await engine.exec(container, spec)
    try:
        text = b""
        while chunk := await stream.read():
            text = (text + chunk[1])[-_MOST:]
        code = await stream.wait()
    finally:
        await stream.close()
    for line in text.decode(errors="replace").splitlines():
        await engine.write_rule(log_path, line)
    return code


async def run_hooks(engine: Engine, container: str, hooks: Sequence[Hook], what: str, log_path: str = "") -> None:
    """In order; the first that fails ends it. `log_path`: where the container's log is, if that is known. Raises `StartFailed`."""
    if hooks and not log_path:
        log_path = (await engine.container(container)).log_path
    for hook in hooks:
        code = await run_hook(engine, container, hook, log_path)
        if code:
            raise StartFailed(f"the {what} hook `{' '.join(hook.command)}` ended with exit code {code}")


async def before_stop(engine: Engine, container: str, hooks: Sequence[Hook]) -> str:
    """A container's `pre_stop` hooks. One that fails keeps nothing from stopping: what is wrong with it, "" for nothing."""
    try:
        await run_hooks(engine, container, hooks, "pre_stop")
    except EngineError as error:
        return error.message
    return ""
