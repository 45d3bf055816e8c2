"""`clone`: a container of another host, here, to be looked into."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.common import clean, read, run
from engine.cli.flags import Flag
from engine.errors import EngineError

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.cli.clone_plan import Here, Plan

USAGE = "clone [OPTIONS] ssh://[USER@]HOST[:PORT][/ENGINE]/CONTAINER"
SUMMARY = "Bring a container of another host here: its image, changed files, settings and limits"


def cmd_clone(root: Path, args: list[str]) -> int:
    flags = [
        Flag("name", "Name of the clone (default: the container's, or one like it)", kind="str"),
        Flag("mounts", "Copy what is mounted in it, volumes and folders alike, into volumes of the clone"),
        Flag("redact", "Take secrets out of the environment: by names, and by what values look like"),
        Flag("env", "Set a variable of the clone, over the container's", "e", kind="list"),
        Flag("no-changes", "Leave the files that the container changed: only its image and settings"),
        Flag("no-start", "Create the clone, and do not start it"),
        Flag("quiet", "Print the clone's id alone", "q"),
    ]
    parsed = read(args, USAGE, SUMMARY, flags, minimum=1, maximum=1)
    if parsed is None:
        return 0
    url, quiet = parsed.args[0], parsed.on("quiet")

    async def work(engine: Engine) -> int:
        from engine.cli.clone_plan import plan
        from engine.cli.images import drawn
        from engine.service.wire import container_spec

        found, kinds = await engine.look_at_host(url)
        made = plan(
            found,
            kinds,
            _here(),
            mounts=parsed.on("mounts"),
            redact=parsed.on("redact"),
            env=[_given(entry) for entry in parsed.items("env")],
        )
        taken = {one.name for one in await engine.containers(all=True)}
        name = parsed.text("name") or _free_name(str(found.get("Name") or "clone").lstrip("/"), taken)
        spec = container_spec({**made.body, "Image": "clone"}, name)
        with drawn(sys.stderr) as progress:
            container_id = await engine.clone_from_host(
                url, found, spec, made.copies, changes=not parsed.on("no-changes"), progress=progress
            )
        print(container_id if quiet else name)
        status = 0 if parsed.on("no-start") else await _start(engine, name)
        if not quiet:
            await _tell(engine, name, made)
        return status

    return run(root, work)


def _given(entry: str) -> str:
    """`-e NAME` takes the value from here, as `run` does."""
    return entry if "=" in entry else f"{entry}={os.environ.get(entry, '')}"


async def _start(engine: Engine, name: str) -> int:
    try:
        await engine.start(name)
    except EngineError as error:
        print(f"workbench: {name} is here and did not start: {error}", file=sys.stderr)
        if error.hint:
            print(f"  hint: {error.hint}", file=sys.stderr)
        return 1
    return 0


async def _tell(engine: Engine, name: str, made: Plan) -> None:
    """What is here, and what is not as it was there; on stderr, for the name alone is the result."""
    summary = await engine.container_summary(name)
    changes = len(await engine.changes(name))
    lines = [f"{name} is {'running' if summary.running else summary.status}, from image {summary.image_id[7:19]}"]
    lines += [f"changed files: {changes} (`workbench diff {name}`)"] if changes else []
    lines += [f"port {port}" for port in summary.ports]
    lines += [f"copied: {path}" for path, _ in made.copies]
    if made.redacted:
        lines.append(f"redacted: {', '.join(made.redacted)} (-e NAME=VALUE sets one)")
        lines += await _in_the_image(engine, summary.image_id, made)
    lines += [f"not carried: {line}" for line in made.left]
    print("\n".join(clean(f"  {line}") for line in lines), file=sys.stderr)


async def _in_the_image(engine: Engine, image: str, made: Plan) -> list[str]:
    config = (await engine.image(image)).config.get("config")
    entries = config.get("Env") if isinstance(config, Mapping) else None
    names = {str(entry).partition("=")[0] for entry in entries or ()}
    kept = [name for name in made.redacted if name in names]
    return [f"in the image itself, and so here all the same: {', '.join(kept)}"] if kept else []


def _free_name(name: str, taken: set[str]) -> str:
    candidates = [name, f"{name}-clone", *(f"{name}-clone{number}" for number in range(2, 100))]
    return next((one for one in candidates if one not in taken), "")


def _here() -> Here:
    from engine.cli.clone_plan import Here

    def free(port: int, protocol: str) -> bool:
        kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                return True
        return False

    return Here(free, os.path.exists, os.cpu_count() or 1)
