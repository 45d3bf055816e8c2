"""`serve`: the Docker Engine API on a unix socket."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base import systemd
from engine.cli.common import here, read, run
from engine.cli.flags import Flag, Parsed
from engine.errors import InvalidInput

if TYPE_CHECKING:
    from engine.api import Engine

FLAGS = [
    Flag("socket", "Where to listen (default: api.sock in the runtime folder)", kind="str", metavar="PATH"),
    Flag("group", "The group that may connect (default: docker, if there is one)", "G", kind="str"),
    Flag("tcp", "Listen on HOST:PORT too; needs the three TLS files", kind="str", metavar="HOST:PORT"),
    Flag("tlscacert", "Clients must show a certificate signed by this CA", kind="str", metavar="FILE"),
    Flag("tlscert", "This server's certificate", kind="str", metavar="FILE"),
    Flag("tlskey", "This server's key", kind="str", metavar="FILE"),
    Flag("idle", "End after so many seconds without a client, and start nothing that has a restart policy", kind="int"),
    Flag("install", "Write systemd units (an ordinary user's own) that serve with these options, and say what to run"),
    Flag("uninstall", "Remove these units"),
]


def cmd_serve(root: Path, args: list[str]) -> int:
    parsed = read(args, "serve [OPTIONS]", "Serve the Docker Engine API", FLAGS, maximum=0)
    if parsed is None:
        return 0
    if parsed.on("install") or parsed.on("uninstall"):
        here("serve")
        return _units(root, parsed)
    here("serve")
    return run(root, lambda engine: _serve(engine, root, parsed))


def _units(root: Path, parsed: Parsed) -> int:
    from engine.cli import units
    from engine.runtime.places import runtime_dir, user

    if parsed.on("install") and parsed.on("uninstall"):
        raise InvalidInput("--install and --uninstall exclude each other")
    tcp = _tcp(parsed)
    words = [*units.program(), "--root", str(root), "serve"]
    for name in ("tcp", "tlscacert", "tlscert", "tlskey") if tcp else ():
        value = parsed.text(name)
        words += [f"--{name}", value if name == "tcp" else str(Path(value).absolute())]
    socket = Path(parsed.text("socket") or runtime_dir(root) / "api.sock").absolute()
    ordinary = user() is not None
    plan = units.Plan(units.folder(user=ordinary), ordinary, words, socket, _group(parsed.text("group"), ordinary))
    for line in units.install(plan) if parsed.on("install") else units.uninstall(plan):
        print(line)
    return 0


def _group(given: str, ordinary: bool) -> str:
    """The group of the socket; systemd refuses to start a unit with one that is not there."""
    import grp

    if ordinary and not given:
        return ""
    try:
        return grp.getgrnam(given or "docker").gr_name
    except KeyError:
        if given:
            raise InvalidInput(f"there is no group {given!r} on this host", hint=f"groupadd {given}") from None
        return ""


def _tcp(parsed: Parsed) -> tuple[str, int, list[Path]] | None:
    """Address, port and TLS files of --tcp. Raises InvalidInput."""
    if not parsed.given("tcp"):
        return None
    host, colon, port = parsed.text("tcp").removeprefix("tcp://").rpartition(":")
    files = [parsed.text(name) for name in ("tlscacert", "tlscert", "tlskey")]
    if not colon or not port.isdigit() or not all(files):
        raise InvalidInput(
            "--tcp needs HOST:PORT, --tlscacert, --tlscert and --tlskey",
            hint="without client certificates whoever reaches the port would be root here",
        )
    return host.strip("[]"), int(port), [Path(file) for file in files]


async def _serve(engine: Engine, root: Path, parsed: Parsed) -> int:
    from engine.local import LocalEngine
    from engine.rest.server import ApiServer, Tls
    from engine.runtime.places import runtime_dir

    tcp = _tcp(parsed)
    if isinstance(engine, LocalEngine):
        engine.stays()
    server = ApiServer(engine, scratch=root / "tmp")
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        passed = await server.listen_passed()
        if not passed or parsed.given("socket"):
            path = Path(parsed.text("socket") or runtime_dir(root) / "api.sock").absolute()
            await server.listen_unix(path, group=parsed.text("group"))
        if tcp is not None:
            host, port, files = tcp
            await server.listen_tcp(host, port, Tls(*files))
        if passed:
            print(f"serving the Docker API at {passed} socket{'s' if passed > 1 else ''} from systemd", flush=True)
        for address in server.addresses:
            print(f"serving the Docker API at {address}\n  export DOCKER_HOST={address}", flush=True)
        systemd.notify("READY=1", "STATUS=Serving the Docker Engine API")
        if idle := parsed.number("idle"):
            ending = asyncio.create_task(server.idle(idle))
            ending.add_done_callback(lambda _: stop.set())
        else:
            for name in await engine.resume():
                print(f"started {name}: its restart policy says so", flush=True)
        await stop.wait()
    finally:
        systemd.notify("STOPPING=1")
        await server.close()
    return 0
