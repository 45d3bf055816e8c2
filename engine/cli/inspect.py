"""`inspect`: containers and images as Docker's JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.clock import rfc3339
from engine.cli.common import read, run
from engine.cli.flags import Flag
from engine.cli.tables import documents
from engine.errors import InvalidInput, NotFound

if TYPE_CHECKING:
    from engine.api import Engine


def cmd_inspect(root: Path, args: list[str]) -> int:
    flags = [
        Flag("format", "Format output with a template", "f", kind="str"),
        Flag("size", "Display total file sizes if the type is container", "s"),
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
                document = await _one(engine, name, wanted)
                if parsed.on("size") and "HostConfig" in document:
                    document |= await _sizes(engine, str(document["Id"]))
                found.append(document)
            except (NotFound, InvalidInput) as error:
                missing.append(f"workbench: {error if wanted else f'No such object: {name}'}")
        if parsed.given("format"):
            print(documents(parsed.text("format"), found))
        else:
            print(json.dumps(found, indent=4, ensure_ascii=False))
        for line in missing:
            print(line, file=sys.stderr)
        return 1 if missing else 0

    return run(root, work, plain=True)


async def _sizes(engine: Engine, container: str) -> dict[str, object]:
    usage = await engine.disk_usage()
    summary, size = next((one, size) for one, size in usage.containers if one.id == container)
    image = next((one.image.size for one in usage.images if one.image.id == summary.image_id), 0)
    return {"SizeRw": size, "SizeRootFs": size + image}


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
