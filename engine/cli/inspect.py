"""`inspect`: containers and images as Docker's JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.clock import rfc3339
from engine.cli.common import read, run
from engine.cli.flags import Flag
from engine.cli.tables import render
from engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from engine.api import Engine


def cmd_inspect(root: Path, args: list[str]) -> int:
    flags = [
        Flag("format", "Format output with a template", "f", kind="str"),
        Flag("type", "Only this type: container or image", kind="str"),
    ]
    parsed = read(
        args,
        "inspect [OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on containers and images",
        flags,
        minimum=1,
    )
    if parsed is None:
        return 0
    wanted = parsed.text("type")
    if wanted not in ("", "container", "image"):
        raise InvalidInput(f"--type {wanted!r} is not known", hint="container or image")

    async def work(engine: Engine) -> int:
        found: list[dict[str, object]] = []
        missing: list[str] = []
        for name in parsed.args:
            try:
                found.append(await _one(engine, name, wanted))
            except (NotFound, InvalidInput) as error:
                missing.append(f"workbench: {error if wanted else f'No such object: {name}'}")
        if parsed.given("format"):
            print(render(parsed.text("format"), found))
        else:
            print(json.dumps(found, indent=4, ensure_ascii=False))
        for line in missing:
            print(line, file=sys.stderr)
        return 1 if missing else 0

    return run(root, work)


async def _one(engine: Engine, name: str, wanted: str) -> dict[str, object]:
    if wanted != "image":
        try:
            return dict((await engine.container(name)).config)
        except NotFound:
            if wanted:
                raise
    detail = await engine.image(name)
    image, document = detail.summary, detail.config
    return {
        "Id": image.id,
        "RepoTags": list(image.tags),
        "RepoDigests": list(detail.repo_digests),
        "Created": rfc3339(image.created),
        "Architecture": document.get("architecture", ""),
        "Os": document.get("os", ""),
        "Size": image.size,
        "Config": document.get("config", {}),
        "RootFS": {"Type": "layers", "Layers": [layer.diff_id for layer in detail.layers if layer.diff_id]},
    }
