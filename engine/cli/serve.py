"""`serve`: the Docker Engine API on a unix socket."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from engine.cli.common import read, run
from engine.cli.flags import Flag, Parsed
from engine.errors import InvalidInput

if TYPE_CHECKING:
    from engine.local import LocalEngine

FLAGS = [
    Flag("socket", "Where to listen (default: api.sock in the runtime folder)", kind="str", metavar="PATH"),
    Flag("group", "The group that may connect (default: docker, if there is one)", "G", kind="str"),
    Flag("tcp", "Listen on HOST:PORT too; needs the three TLS files", kind="str", metavar="HOST:PORT"),
    Flag("tlscacert", "Clients must show a certificate signed by this CA", kind="str", metavar="FILE"),
    Flag("tlscert", "This server's certificate", kind="str", metavar="FILE"),
    Flag("tlskey", "This server's key", kind="str", metavar="FILE"),
]


def cmd_serve(root: Path, args: list[str]) -> int:
    parsed = read(args, "serve [OPTIONS]", "Serve the Docker Engine API", FLAGS, maximum=0)
    return 0 if parsed is None else run(root, lambda engine: _serve(engine, parsed))


async def _serve(engine: LocalEngine, parsed: Parsed) -> int:
    from engine.local import runtime_dir
    from engine.rest.server import ApiServer, Tls

    server = ApiServer(engine, scratch=engine.root / "tmp")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        passed = await server.listen_passed()
        if not passed or parsed.given("socket"):
            path = Path(parsed.text("socket") or runtime_dir(engine.root) / "api.sock").absolute()
            await server.listen_unix(path, group=parsed.text("group"))
        if parsed.given("tcp"):
            host, colon, port = parsed.text("tcp").removeprefix("tcp://").rpartition(":")
            files = [parsed.text(name) for name in ("tlscacert", "tlscert", "tlskey")]
            if not colon or not port.isdigit() or not all(files):
                raise InvalidInput(
                    "--tcp needs HOST:PORT, --tlscacert, --tlscert and --tlskey",
                    hint="without client certificates whoever reaches the port would be root here",
                )
            await server.listen_tcp(host.strip("[]"), int(port), Tls(*map(Path, files)))
        for address in server.addresses:
            print(f"serving the Docker API at {address}\n  export DOCKER_HOST={address}", flush=True)
        for name in await engine.resume():
            print(f"started {name}: its restart policy says so", flush=True)
        await stop.wait()
    finally:
        await server.close()
    return 0
