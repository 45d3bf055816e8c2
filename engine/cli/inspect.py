"""`inspect`: containers, images, networks and volumes as Docker's JSON."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

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
        Flag("type", "Only this type: container, image, network or volume", kind="str"),
    ]
    parsed = read(
        args,
        "inspect [OPTIONS] NAME|ID [NAME|ID...]",
        "Return low-level information on containers, images, networks and volumes",
        flags,
        minimum=1,
    )
    if parsed is None:
        return 0
    wanted = parsed.text("type")
    if wanted and wanted not in _KINDS:
        raise InvalidInput(f'"{wanted}" is not a valid value for --type', hint=", ".join(_KINDS))

    async def work(engine: Engine) -> int:
        found: list[dict[str, object]] = []
        missing: list[str] = []
        for name in parsed.args:
            try:
                one = await document(engine, name, wanted)
                if parsed.on("size") and "HostConfig" in one:
                    one |= await _sizes(engine, str(one["Id"]))
                found.append(one)
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


async def _container(engine: Engine, name: str) -> dict[str, object]:
    return dict((await engine.container(name)).config)


async def _image(engine: Engine, name: str) -> dict[str, object]:
    from engine.rest.image_documents import document as of_image

    return of_image(await engine.image(name))


async def _network(engine: Engine, name: str) -> dict[str, object]:
    return dict((await engine.network(name)).config)


async def _volume(engine: Engine, name: str) -> dict[str, object]:
    from engine.cli.volumes import document as of_volume

    return of_volume(await engine.volume(name))


# As Docker looks for a name of no type.
_KINDS = {"container": _container, "image": _image, "network": _network, "volume": _volume}


async def document(engine: Engine, name: str, wanted: str = "") -> dict[str, object]:
    """Docker's document of what has this name, of the type `wanted` if one is given. Raises `NotFound`, `InvalidInput`."""
    if wanted:
        return await _KINDS[wanted](engine, name)
    for look in _KINDS.values():
        try:
            return await look(engine, name)
        except (NotFound, InvalidInput):
            continue
    raise NotFound(f"No such object: {name}")
