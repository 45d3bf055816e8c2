"""The sample project that `workbench demo` writes: a small web server of the standard library."""

from __future__ import annotations

import socket
from pathlib import Path

from engine.base.atomic import write_atomic
from engine.errors import Conflict, from_os_error

APP = '''"""A tiny web app. Change MESSAGE and save: the workbench rebuilds the image and replaces the container."""

import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

MESSAGE = "Hello from the workbench"
PAGE = """<!doctype html><meta charset="utf-8"><title>demo</title>
<body style="font: 22px system-ui; display: grid; place-items: center; height: 90vh; background: #10141a; color: #d7e0ea">
<h1>{message}</h1></body>"""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = PAGE.format(message=MESSAGE).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        print(f"{self.command} {self.path} -> {args[1] if len(args) > 1 else ''}", flush=True)


# Pid 1 has no default signal handlers: without this, `stop` would wait for its grace period and kill.
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
port = int(os.environ.get("PORT", "8000"))
print(f"{MESSAGE}: http://localhost:{port}", flush=True)
ThreadingHTTPServer(("", port), Handler).serve_forever()
'''
DOCKERFILE = """FROM workbench/base
WORKDIR /app
ENV PORT={port}
EXPOSE {port}
COPY app.py .
CMD ["python3", "-u", "app.py"]
"""
COMPOSE = """services:
  web:
    build: .
    ports:
      - "{port}:{port}"
"""
README = """# workbench demo
Change MESSAGE in `app.py` and save: the image is rebuilt and the container replaced.
`workbench` in this folder opens the app again; `workbench up` does the same without it.
"""
FIRST_PORT = 8000


def free_port(first: int = FIRST_PORT) -> int:
    """The first port from `first` on that nobody listens on now."""
    for port in range(first, first + 200):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("", port))
            except OSError:
                continue
            return port
    raise Conflict(f"no free port from {first} to {first + 199}")


def write_demo(folder: Path) -> list[Path]:
    """Writes what is missing; a file that is there is left as it is. Returns what was written."""
    values = {"app.py": APP, "README.md": README, ".dockerignore": "README.md\n"}
    if not (folder / "Dockerfile").exists() and not (folder / "compose.yaml").exists():
        port = free_port()
        values |= {"Dockerfile": DOCKERFILE.format(port=port), "compose.yaml": COMPOSE.format(port=port)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = [folder / name for name in values if not (folder / name).exists()]
        for path in written:
            write_atomic(path, values[path.name].encode(), 0o644)
    except OSError as error:
        raise from_os_error(error, f"writing the demo into {folder}") from error
    return written
