"""Builds on a data root of the session's own, looked at from inside: config, history and every layer's entries."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.archive.tarstream import TarStream
from engine.base.cancel import CancelToken
from engine.local import runtime_dir
from engine.model import BuildEvent, BuildRequest, StepFinished, StepOutput
from engine.runtime.client import Runtime
from engine.service.builds import BuildService
from engine.service.images import ImageService
from engine.store.store import Store

BUSYBOX = next((path for path in ("/bin/busybox", "/usr/bin/busybox") if os.path.exists(path)), "")
BASE = "test/busybox"
BASE_DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
COPY passwd group /etc/
RUN mkdir -p /tmp /root /var/lib /usr/bin && chmod 1777 /tmp && ln -s var/lib /link && touch -d @1000000000 /etc/passwd
CMD ["sh"]
"""
PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:app:/home/app:/bin/sh\n"
GROUP = "root:x:0:\napp:x:1001:\nextra:x:1002:app\n"
Files = Mapping[str, str | bytes]


@dataclass(frozen=True)
class Entry:
    """One entry of a layer's tar. `content` of a file, `link` of a link."""

    kind: str
    mode: int
    uid: int
    gid: int
    mtime: int
    content: bytes = b""
    link: str = ""
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass
class Built:
    """A finished build. `layers` are those above the base, bottom first: path -> entry."""

    image: str
    digest: str
    config: dict[str, Any]
    document: dict[str, Any]
    history: list[tuple[str, bool]]
    layers: list[dict[str, Entry]]
    events: list[BuildEvent]
    service: BuildService
    store: Store

    @property
    def output(self) -> str:
        return "\n".join(event.text for event in self.events if isinstance(event, StepOutput))

    @property
    def cached(self) -> list[bool]:
        """Of every step that is finished, in order."""
        return [event.cached for event in self.events if isinstance(event, StepFinished)]

    @property
    def reasons(self) -> dict[str, str]:
        """Why steps ran, by instruction."""
        return {e.step.instruction: e.reason for e in self.events if isinstance(e, StepFinished) and not e.cached}

    def file(self, path: str) -> Entry:
        """The topmost layer's entry that has `path`."""
        for layer in reversed(self.layers):
            if path in layer:
                return layer[path]
        raise AssertionError(f"no layer has {path}: {[sorted(layer) for layer in self.layers]}")

    def text(self, path: str) -> str:
        return self.file(path).content.decode()

    def paths(self) -> list[str]:
        return sorted(path for layer in self.layers for path in layer)


def write_files(folder: Path, files: Files) -> None:
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        path.chmod(0o644)
        os.utime(path, (1_600_000_000, 1_600_000_000))


class Builder:
    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        self.images = ImageService(self.store)
        self.service = BuildService(self.store, Runtime(runtime_dir(root)), self.images)
        self._base_layers = 0

    def base(self, folder: Path) -> None:
        """`FROM test/busybox`: a static busybox, two users, a link to a directory."""
        if self.store.images.find(BASE) is None:
            folder.mkdir(exist_ok=True)
            shutil.copyfile(BUSYBOX, folder / "busybox")
            (folder / "busybox").chmod(0o755)
            write_files(folder, {"passwd": PASSWD, "group": GROUP, "Dockerfile": BASE_DOCKERFILE})
            os.utime(folder / "busybox", (1_600_000_000, 1_600_000_000))
            self.service.build(BuildRequest(folder, tags=(BASE,)), lambda event: None, CancelToken())
        image = self.store.images.get(BASE)
        self._base_layers = len(self.store.images.manifest(image).layers)

    def __call__(self, context: Path, cancel: CancelToken | None = None, **more: Any) -> Built:
        events: list[BuildEvent] = []
        try:
            finished = self.service.build(BuildRequest(context, **more), events.append, cancel or CancelToken())
        except Exception as error:
            error.events = events  # type: ignore[attr-defined]
            raise
        image = self.store.images.get(finished.digest)
        config, manifest = self.store.images.config(image), self.store.images.manifest(image)
        base = self.store.images.config(self.store.images.get(BASE)).diff_ids
        above = len(base) if config.diff_ids[: len(base)] == base else 0
        return Built(
            finished.image_id,
            finished.digest,
            dict(config.document["config"]),
            dict(config.document),
            [(entry.created_by, entry.empty_layer) for entry in config.history],
            [read_layer(self.store, layer) for layer in manifest.layers[above:]],
            events,
            self.service,
            self.store,
        )


def read_layer(store: Store, descriptor: Any) -> dict[str, Entry]:
    entries: dict[str, Entry] = {}
    with store.open_layer(descriptor) as raw:
        tar = TarStream(raw)
        for member in tar.members():
            content = b""
            while member.kind == "file" and (data := tar.read(1 << 20)):
                content += data
            entries[member.name.rstrip("/")] = Entry(
                member.kind, member.mode, member.uid, member.gid, member.mtime, content, member.link, member.xattrs
            )
    return entries


@pytest.fixture(scope="session")
def builder(tmp_path_factory: pytest.TempPathFactory, data_root: Path) -> Iterator[Builder]:
    if not BUSYBOX:
        pytest.skip("busybox-static is not installed")
    made = Builder(data_root)
    made.base(tmp_path_factory.mktemp("base"))
    yield made
    made.service.close()
    made.store.close()


@pytest.fixture
def make(builder: Builder, tmp_path: Path) -> Callable[..., Built]:
    """`make("RUN …", files={…})` builds on the busybox base; a Dockerfile with a FROM of its own is taken as it is."""

    def build(text: str, files: Files | None = None, **more: Any) -> Built:
        context = tmp_path / "context"
        context.mkdir(exist_ok=True)
        write_files(context, files or {})
        has_from = any(line.upper().startswith("FROM ") for line in text.splitlines())
        write_files(context, {"Dockerfile": text if has_from else f"FROM {BASE}\n{text}\n"})
        return builder(context, **more)

    return build


def mode_of(entry: Entry) -> str:
    return f"{stat.S_IMODE(entry.mode):04o}"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
