"""`registry`: the local store as a registry for other machines."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.cancel import CancelToken
from engine.cli.common import here, read, run
from engine.cli.flags import Flag
from engine.errors import EngineError, InvalidInput

if TYPE_CHECKING:
    from engine.api import Engine
    from engine.model import Comparison


def cmd_registry(root: Path, args: list[str]) -> int:
    flags = [
        Flag("listen", "HOST:PORT to listen on (default 127.0.0.1:5000)", kind="str", metavar="ADDRESS"),
        Flag("read-only", "Serve pulls only"),
        Flag("user", "Name that clients must give; the password is $WORKBENCH_REGISTRY_PASSWORD", kind="str"),
        Flag("password-stdin", "Take the password from stdin"),
        Flag("tls-cert", "Certificate (PEM) to serve TLS with", kind="str", metavar="FILE"),
        Flag("tls-key", "Its key (PEM)", kind="str", metavar="FILE"),
        Flag("anonymous", "Let everybody push, on an address that other machines reach"),
    ]
    parsed = read(args, "registry [OPTIONS]", "Serve the local store as an OCI registry", flags, maximum=0)
    if parsed is None:
        return 0
    here("registry")
    from engine.registry.config import is_loopback
    from engine.registry.server import RegistryServer, Serving
    from engine.store.images import Image
    from engine.store.store import Store

    host, _, port = parsed.text("listen", "127.0.0.1:5000").rpartition(":")
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidInput(f"--listen {parsed.text('listen')!r} is not an address", hint="write HOST:PORT or :PORT")
    user = parsed.text("user")
    password = os.environ.get("WORKBENCH_REGISTRY_PASSWORD", "")
    if parsed.on("password-stdin"):
        password = sys.stdin.readline().rstrip("\r\n")
    if user and not password:
        raise InvalidInput("--user needs a password", hint="set WORKBENCH_REGISTRY_PASSWORD, or use --password-stdin")
    host = host.strip("[]") or "0.0.0.0"
    serving = Serving(
        host, int(port), parsed.on("read-only"), user, password, parsed.text("tls-cert"), parsed.text("tls-key")
    )
    if not (is_loopback(host) or user or serving.read_only or parsed.on("anonymous")):
        raise InvalidInput(
            f"everybody who reaches {host} could push here",
            hint="add --user NAME (and --tls-cert), --read-only, or say --anonymous",
        )
    store = Store(root)

    def unpack(image: Image) -> None:
        try:
            with store.using():
                manifest, config = store.images.manifest(image), store.images.config(image)
                records = store.ensure_layers(manifest.layers, config.diff_ids, cancel=stop)
                store.images.set_size(image, sum(record.size for record in records))
        except EngineError as error:
            print(f"workbench: {image.familiar_tags}: {error}", file=sys.stderr, flush=True)

    stop = CancelToken()
    server = RegistryServer(store, serving, on_image=unpack if os.geteuid() == 0 else None)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: threading.Thread(target=server.close).start())
    scheme = "https" if serving.certificate else "http"
    print(f"serving {root} on {scheme}://{server.address}", flush=True)
    server.serve()
    stop.cancel()
    store.close()
    return 0


def cmd_verify(root: Path, args: list[str]) -> int:
    flags = [
        Flag("on", "The other host: ssh://[USER@]HOST[/ENGINE]", kind="str", metavar="URL"),
        Flag("files", "Read every file on both sides: kind, mode, owner, time and content"),
    ]
    parsed = read(
        args,
        "verify IMAGE --on URL",
        "Show that an image is the same here and on another host",
        flags,
        minimum=1,
        maximum=1,
    )
    if parsed is None:
        return 0
    if not parsed.given("on"):
        raise InvalidInput("verify needs the other host", hint="--on ssh://[USER@]HOST[/ENGINE]")

    async def work(engine: Engine) -> int:
        files = parsed.on("files")
        for row in (rows := await engine.verify_on_host(parsed.text("on"), parsed.args[0], files=files)):
            print(f"{'same' if row.same else 'DIFFERENT':<10} {row.what:<10} {_sides(row)}")
        if files and not any(row.what.startswith("/") for row in rows):
            print(
                "same       files      (not compared: what an engine itself puts below /dev, /proc, /sys and into /etc)"
            )
        return 0 if all(row.same for row in rows) else 1

    return run(root, work)


def _sides(row: Comparison) -> str:
    if row.packing:
        return f"{row.here} here, {row.there} there: the same layers, compressed in another way"
    return row.here if row.same else f"here {row.here}, there {row.there}"
