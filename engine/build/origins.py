"""The build context and the named ones (`--build-context NAME=…`): folders, git repositories, archives behind URLs, images, stages."""

from __future__ import annotations

import contextlib
import shutil
import threading
from dataclasses import dataclass
from pathlib import Path

from engine.base.cancel import CancelToken
from engine.build.dockerfile.ignore import Matcher, read_patterns
from engine.build.fetch import Fetcher
from engine.build.git import GitSource, parse_git_ref
from engine.build.indexed import IndexedSource
from engine.build.interfaces import Emit, ImageSource
from engine.build.source import ContextSource, Source
from engine.build.trees import Trees
from engine.build.watched import ContextIndexes
from engine.errors import InvalidInput, Unsupported
from engine.model import BuildRequest
from engine.oci.platform import Platform
from engine.oci.reference import Reference
from engine.store.images import Image
from engine.store.store import Store


@dataclass(frozen=True, slots=True)
class Named:
    """What a name stands for: one of the three. `key` is what a cache key says of it, "" when its content does."""

    source: Source | None = None
    image: Image | None = None
    stage: str = ""


class Contexts:
    """Opens what is asked for, once; `close` lets go of it. `cache` remembers digests across builds."""

    def __init__(
        self,
        store: Store,
        images: ImageSource,
        request: BuildRequest,
        matcher: Matcher | None,
        emit: Emit,
        cancel: CancelToken,
        indexes: ContextIndexes | None = None,
        trees: Trees | None = None,
    ) -> None:
        self._store, self._images, self._request = store, images, request
        self._matcher, self._emit, self._cancel = matcher, emit, cancel
        self._main: IndexedSource | None = None
        self._named: dict[str, Named] = {}
        self._indexes = indexes or ContextIndexes(store.root / "stat", keep=False)
        self.trees = trees
        self._indexed: list[IndexedSource] = []
        self._lock = threading.RLock()  # stages ask beside each other
        self._closing = contextlib.ExitStack()
        self._names = {self._key(name): value for name, value in request.contexts.items()}

    def close(self) -> None:
        for source in self._indexed:
            source.release()
        self._closing.close()

    @property
    def moved(self) -> bool:
        """Whether a file changed between its digest and its copy: then nothing that was made may be remembered."""
        return any(source.moved for source in self._indexed)

    @property
    def scanned(self) -> float:
        """Seconds that looking at folders took."""
        return sum(source.seconds for source in self._indexed)

    @property
    def main(self) -> IndexedSource:
        with self._lock:
            if self._main is None:
                where = f"the build context {self._request.remote.rpartition('@')[2]}" if self._request.remote else ""
                self._main = self._folder(self._request.context, self._matcher, where)
            return self._main

    @property
    def entries(self) -> int:
        """Files of the build context that were looked at."""
        return self._main.entries if self._main is not None else 0

    def _folder(self, root: Path, matcher: Matcher | None, where: str = "") -> IndexedSource:
        passing = self._request.passing and root == self._request.context
        source = IndexedSource(root, matcher, self._indexes, self.trees, self._cancel, where=where, passing=passing)
        self._indexed.append(source)
        return source

    def on_close(self, source: ContextSource) -> None:
        """A temporary folder of ours that goes with the build."""
        self._closing.callback(shutil.rmtree, source.root, ignore_errors=True)
        self._closing.callback(source.close)

    @staticmethod
    def _key(name: str) -> str:
        """`alpine` and `docker.io/library/alpine:latest` are one name."""
        try:
            return str(Reference.parse(name.lower()).with_default_tag())
        except InvalidInput:
            return name.lower()

    def is_named(self, name: str) -> bool:
        return name.lower() not in ("scratch", "context") and self._key(name) in self._names

    def named(self, name: str, platform: Platform | None = None) -> Named | None:
        """What `--build-context` says of `name`, None when it says nothing. Raises `InvalidInput`, `NotFound`."""
        if not self.is_named(name):
            return None
        key = f"{self._key(name)} {platform or ''}"
        with self._lock:
            if key not in self._named:
                self._named[key] = self._open(name, self._names[self._key(name)], platform)
            return self._named[key]

    def _open(self, name: str, value: str, platform: Platform | None) -> Named:
        scheme, _, rest = value.partition("://")
        if scheme == "docker-image":
            return Named(image=self.image(rest, platform))
        if scheme == "oci-layout":
            path, reference = _split_layout(rest)
            image = self._images.layout(path, reference, cancel=self._cancel, platform=platform)
            return Named(image=image)
        if value.startswith("target:"):
            return Named(stage=value.removeprefix("target:"))
        if git := parse_git_ref(value):
            source = GitSource(git, self._store.tmp, self._request, self._cancel)
            self._closing.callback(source.close)
            return Named(source=source)
        if scheme in ("http", "https"):
            fetcher = Fetcher(self._store, self._request, self._cancel)
            return Named(source=self._folder(self._temporary(fetcher.archive(value)), None, f"the context {name}"))
        if "://" in value:
            raise Unsupported(
                f"--build-context {name}={value}: this kind of context is not known",
                hint="a folder, a git repository, an http(s) archive, docker-image://, oci-layout:// or target:STAGE",
            )
        root = Path(value).absolute()
        if not root.is_dir():
            raise InvalidInput(f"--build-context {name}={value}: it is not a folder")
        return Named(source=self._folder(root, self._ignore(root), f"the context {name} ({root})"))

    def _temporary(self, path: Path) -> Path:
        self._closing.callback(shutil.rmtree, path, ignore_errors=True)
        return path

    def _ignore(self, root: Path) -> Matcher | None:
        from engine.build.reading import read_ignore

        text = read_ignore(root)
        patterns = read_patterns(text) if text is not None else []
        return Matcher(patterns) if patterns else None

    def image(self, name: str, platform: Platform | None = None, *, pull: bool = False) -> Image:
        return self._images.base(name, pull=pull, emit=self._emit, cancel=self._cancel, platform=platform)


def _split_layout(text: str) -> tuple[Path, str]:
    """`/path`, `/path:tag`, `/path@sha256:…`."""
    path, at, digest = text.partition("@")
    if at:
        return Path(path), digest
    head, colon, tag = path.rpartition(":")
    return (Path(head), tag) if colon and "/" not in tag else (Path(path), "")
