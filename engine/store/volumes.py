"""Volumes: named folders that outlive containers, Docker's driver "local".

`volumes/<name>/_data` is what containers see, `volumes/<name>/volume.json` says what it is. A volume is made under a
temporary name and renamed, so a present one is complete. Whoever is about to record that a container uses a volume
holds the room's lock shared (`using`); removal holds it exclusively: a volume never vanishes between the two.

With options `type`, `device` and `o` (mount(8)'s -t, device and -o) the folder is a mount point: the file system is
mounted when a container is started and taken away with the last one, as Docker does. Mounting is the service's work.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from engine.base.atomic import fsync_dir, locked, write_atomic
from engine.base.lazy import lazy
from engine.errors import Conflict, InvalidInput, NotFound, Unsupported, from_os_error

if TYPE_CHECKING:
    import secrets
    import shutil
else:
    secrets = lazy("secrets")
    shutil = lazy("shutil")

DRIVER = "local"
ANONYMOUS = "com.docker.volume.anonymous"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+\Z")
_OPTIONS = ("type", "device", "o", "size")


@dataclass(frozen=True, slots=True)
class Volume:
    """`created` in ns since the epoch; `data` is the folder that containers see."""

    name: str
    data: Path
    labels: Mapping[str, str]
    options: Mapping[str, str]
    created: int
    driver: str = DRIVER

    @property
    def anonymous(self) -> bool:
        return ANONYMOUS in self.labels

    @property
    def lock(self) -> Path:
        """Held while the volume is filled from an image, or mounted."""
        return self.data.parent / "lock"


def check_volume(name: str, driver: str, options: Mapping[str, str]) -> None:
    """Raises `InvalidInput`, `Unsupported` for a volume that cannot be."""
    if driver not in ("", DRIVER):
        raise NotFound(
            f'volume {name}: plugin "{driver}" not found', hint='this engine has the driver "local" and no plugins'
        )
    if name and len(name) < 2:
        raise InvalidInput("volume name is too short, names should be at least two alphanumeric characters")
    if name and not _NAME.match(name):
        raise InvalidInput(
            f'"{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed',
            hint="if you intended to pass a host directory, use an absolute path",
        )
    if len(name) > 255:
        raise InvalidInput(f"volume name {name[:40]!r}… is longer than 255 characters")
    for key, value in options.items():
        if key not in _OPTIONS:
            raise InvalidInput(f'volume {name}: invalid option: "{key}"', hint="type, device and o are known")
        if any(c in value for c in "\0\n\r"):
            raise InvalidInput(f"volume {name}: a control character in option {key}")
    if "size" in options:
        raise Unsupported(
            f"volume {name}: quota size is not supported on this file system",
            hint="bound the size with a file system of its own: -o type=tmpfs -o device=tmpfs -o o=size=100m",
        )
    if options and not (options.get("type") and options.get("device")):
        missing = "device" if options.get("type") else "type"
        raise InvalidInput(f'volume {name}: missing required option: "{missing}"', hint="type=none,device=/path,o=bind")


class VolumeStore:
    def __init__(self, root: Path, tmp: Path) -> None:
        self.root, self.tmp = root, tmp
        root.mkdir(mode=0o710, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def using(self) -> Iterator[None]:
        """Held while a container that names volumes is being recorded."""
        with locked(self.tmp / "volumes.lock", shared=True):
            yield

    @contextlib.contextmanager
    def removing(self) -> Iterator[None]:
        """Held from the look at who uses a volume to its removal."""
        with locked(self.tmp / "volumes.lock"):
            yield

    def find(self, name: str) -> Volume | None:
        if not _NAME.match(name):
            return None
        folder = self.root / name
        try:
            document = json.loads((folder / "volume.json").read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            document = {}  # damaged, and still somebody's data
        return Volume(
            name,
            folder / "_data",
            document.get("labels") or {},
            document.get("options") or {},
            int(document.get("created") or 0),
        )

    def get(self, name: str) -> Volume:
        found = self.find(name)
        if found is None:
            raise NotFound(f"get {name}: no such volume", hint="`workbench volume ls` lists them")
        return found

    def list(self) -> list[Volume]:
        return [volume for name in sorted(os.listdir(self.root)) if (volume := self.find(name))]

    def create(
        self,
        name: str = "",
        driver: str = "",
        labels: Mapping[str, str] | None = None,
        options: Mapping[str, str] | None = None,
    ) -> tuple[Volume, bool]:
        """The volume, and whether it was made now. One that is there already is returned as it is (as Docker does);
        `Conflict` when it was made with other options."""
        options = dict(options or {})
        check_volume(name, driver, options)
        if name and (found := self.find(name)):
            if options and dict(found.options) != options:
                raise Conflict(
                    f"volume {name} exists with other options: {dict(found.options)}",
                    hint="remove it first, or choose another name",
                )
            return found, False
        given = dict(labels or {})
        if not name:
            name, given = secrets.token_hex(32), {**given, ANONYMOUS: ""}
        work = self.tmp / f"volume-{secrets.token_hex(8)}"
        try:
            work.mkdir(mode=0o710)
            (work / "_data").mkdir(mode=0o755)
            os.chmod(work / "_data", 0o755)  # whatever the umask
            document = {"labels": given, "options": options, "created": time.time_ns()}
            write_atomic(work / "volume.json", json.dumps(document).encode())
            try:
                os.rename(work, self.root / name)
            except OSError as error:  # somebody else made it meanwhile: a volume's folder is never empty
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                return self.get(name), False
            fsync_dir(self.root)
        except OSError as error:
            raise from_os_error(error, f"creating volume {name}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)
        return self.get(name), True

    def remove(self, volume: Volume) -> None:
        """Its content too. The caller holds `removing` and knows that nobody uses it."""
        grave = self.tmp / f"stale-{secrets.token_hex(8)}"
        try:
            os.rename(volume.data.parent, grave)
        except FileNotFoundError:
            return
        except OSError as error:
            raise from_os_error(error, f"removing volume {volume.name}") from error
        shutil.rmtree(grave, ignore_errors=True)


def disk_usage(folder: Path) -> int:
    """Sum of the regular files' bytes below `folder`, each inode once; no link is followed."""
    seen: set[tuple[int, int]] = set()
    total = 0
    with contextlib.suppress(FileNotFoundError):  # it was removed meanwhile
        for _path, _folders, names, fd in os.fwalk(folder, follow_symlinks=False):
            for name in names:
                with contextlib.suppress(OSError):
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                    if stat.S_ISREG(status.st_mode) and (status.st_dev, status.st_ino) not in seen:
                        seen.add((status.st_dev, status.st_ino))
                        total += status.st_size
    return total
