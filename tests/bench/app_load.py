"""Key presses in the app while it works as hard as it ever will: `app.py keys`.

A container writes 50,000 lines a second, and its log is the one that shows; the app's own engine runs a build, and pulls images of
thousands of files from a registry on loopback. The keys go to the list of containers. Presses count only while the pull's line is
on the screen, and each is timed until the terminal has the list's cursor mark on another row.
"""

from __future__ import annotations

import contextlib
import os
import re
import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from app import Terminal, project, workbench
from transfers import make_image, make_layers

from engine.oci.reference import Reference
from engine.registry.config import RegistryConfig
from engine.registry.push import push
from engine.store.blobs import BlobStore

IMAGES, SIZE = 3, int(os.environ.get("IMAGE_MB", "300")) * 1_000_000
RATE = 50_000
LOUD = f"""
import sys, time
tail, n, begin = ' GET /index.html 200 in 12 ms, as lines of a web server go, this one too' + chr(10), 0, time.time()
while True:
    sys.stdout.write(''.join('line %09d' % i + tail for i in range(n, n + 500))); sys.stdout.flush(); n += 500
    time.sleep(max(0, begin + n / {RATE} - time.time()))
"""
SLOW = "FROM workbench/base\nRUN for i in $(seq 4000); do echo step $i; sleep 0.02; done\n"
ROW = "▸.{0,240}?(quiet|loud|web)"  # the cursor's mark, on a row that is drawn
PAUSES = (0.015, 0.02, 0.027, 0.035, 0.05)


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[str]:
    """`workbench registry` as a process of its own, with the images."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 5999 if "KEEP" in os.environ else 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    env = {**os.environ, "WORKBENCH_ROOT": str(folder / "registry")}
    process = subprocess.Popen(
        workbench("registry", "--listen", address), env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while True:
            with contextlib.suppress(OSError), socket.create_connection(address.split(":"), 1):  # type: ignore[arg-type]
                break
            time.sleep(0.05)
        there = (folder / "blobs").exists()
        store = BlobStore(folder / "blobs", folder)
        for number in range(0 if there else IMAGES):
            manifest = make_image(store, make_layers(store, SIZE, f"{os.getpid()} {number}"), 100 + number)
            name = Reference.parse(f"{address}/load/{number}:1")
            push(name, manifest, store, RegistryConfig(), progress=lambda one: None)
        yield address
    finally:
        process.terminate()
        process.wait()


def type_in(terminal: Terminal, *keys: str) -> None:
    for key in keys:
        terminal.press(key)
        terminal.read_for(0.3)


def keys() -> None:
    """With KEEP=FOLDER the registry and its images stay there for the next run."""
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(os.environ.get("KEEP", folder)))


def measure(folder: Path) -> None:
    with registry(folder) as address, project() as (env, shop):
        full = {**os.environ, **env}
        for number in range(8):
            words = ["run", "-d", "--name", f"quiet-{number}", "workbench/base", "sleep", "100000"]
            subprocess.run(workbench(*words), env=full, check=True, capture_output=True)
        words = ["run", "-d", "--network", "none", "--name", "a-loud", "workbench/base", "python3", "-c", LOUD]
        subprocess.run(workbench(*words), env=full, check=True, capture_output=True)
        slow = Path(shop, "slow")
        slow.mkdir()
        (slow / "Dockerfile").write_text(SLOW)
        terminal = Terminal(workbench("."), env, shop)
        try:
            terminal.until(r"quiet-\d")
            type_in(terminal, "6", "a", "2", "g")
            rates: list[float] = []
            alone = presses(terminal, 60)
            say("keys with the log of 50,000 lines a second", alone)
            terminal.press("b")
            terminal.until("build an image")
            type_in(terminal, "\x7f", str(slow), "\r")
            terminal.until("RUN for")
            took: list[float] = []
            for number in range(IMAGES):
                type_in(terminal, "3")
                terminal.press("u")
                terminal.until("pull an image")
                terminal.read_for(0.2)
                type_in(terminal, f"{address}/load/{number}:1")
                terminal.tail = b""
                terminal.press("\r")
                terminal.until(r"layers ·")
                terminal.press("2")
                terminal.press("g")
                begin = time.monotonic()
                took += presses(terminal, 10_000, until=f"pulled {address}/load/{number}:1")
                rates.append(time.monotonic() - begin)
            say(f"keys with that, a build and a pull ({', '.join(f'{one:.1f}' for one in rates)} s)", took)
        finally:
            terminal.close()


def presses(terminal: Terminal, most: int, until: str = "") -> list[float]:
    """Milliseconds of each, until `until` comes."""
    took: list[float] = []
    seen, wanted = b"", re.compile(until.encode()) if until else None
    for number in range(most):
        end = time.monotonic() + PAUSES[number % len(PAUSES)]
        while (left := end - time.monotonic()) > 0:
            terminal.read(left)
        seen = (seen + terminal.tail)[-50_000:]
        if wanted is not None and wanted.search(seen):
            break
        terminal.tail = b""
        begin = time.perf_counter()
        terminal.press("j" if number % 16 < 8 else "k")
        took.append((terminal.until(ROW, 5) - begin) * 1000)
    return took


def say(what: str, took: list[float]) -> None:
    took.sort()
    print(
        f"{what}: {len(took)} presses, median {statistics.median(took):.1f} ms, "
        f"99th percentile {took[int(len(took) * 0.99) - 1]:.1f} ms, longest {took[-1]:.1f} ms",
        flush=True,
    )
