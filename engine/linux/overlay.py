"""overlayfs: several read-only trees and one writable one seen as one.

Layers are named `/proc/self/fd/N`, because mount options are limited to one page and a path may hold ':' or ','.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from engine.linux.idmap import inside
from engine.linux.mount import mount

# Off, whatever the host's module parameters say: each makes an upper directory that a diff or another kernel cannot
# read (redirects and metadata-only copies), or that cannot be used with another set of lower directories (index).
_OFF = ("index=off", "metacopy=off", "redirect_dir=nofollow")


def mount_overlay(lowers: Sequence[str], upper: str, work: str, target: str, *, volatile: bool = False) -> None:
    """Mounts at `target`; without an `upper`, read-only (two layers at least). `lowers` has the topmost layer first.

    Call inside the mount namespace that shall see it: overlayfs refuses layers whose mount belongs to another namespace.
    """
    fds: list[int] = []

    def handle(path: str) -> str:
        fds.append(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        return f"/proc/self/fd/{fds[-1]}"

    try:
        lower = ":".join([handle(path) for path in lowers])
        layers = f"lowerdir={lower}"
        if upper:
            layers += f",upperdir={handle(upper)},workdir={handle(work)}"
        # In a user namespace overlayfs may not use trusted.* attributes; Linux 5.11 has this option instead.
        always = (*(("userxattr",) if inside() else ()), *(("volatile",) if volatile else ()))
        for options in (_OFF, _OFF[:1], ()):
            extra = (*options, *always)
            try:
                return mount("overlay", target, "overlay", 0, ",".join((layers, *extra)))
            except OSError as error:
                # EINVAL is also what an option that this kernel does not know gives.
                if error.errno != errno.EINVAL or not options:
                    raise _explained(error, upper) from error
    finally:
        for fd in fds:
            os.close(fd)


def _explained(error: OSError, upper: str) -> OSError:
    """The error with the next step where the kernel's own words name none."""
    if error.errno == errno.ENODEV:
        return OSError(
            errno.ENODEV, "this kernel has no overlayfs; load it (modprobe overlay), or use a kernel that has it"
        )
    if error.errno == errno.EINVAL and upper:
        text = "overlayfs refuses the data root's file system (it may be an overlay itself); choose another with --root"
        return OSError(errno.EINVAL, text)
    return error


def forget_volatile(work: str) -> None:
    """Removes the mark that a volatile mount leaves: with it the next mount of the same work directory fails."""
    for name in ("work/incompat/volatile", "work/incompat"):
        try:
            os.rmdir(os.path.join(work, name))
        except OSError:
            pass
