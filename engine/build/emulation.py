"""Whether a RUN step of a foreign architecture can run: on this processor, or through an interpreter in binfmt_misc."""

from __future__ import annotations

from pathlib import Path

from engine.errors import Unsupported
from engine.oci.config import ImageConfig
from engine.oci.platform import Platform

BINFMT = Path("/proc/sys/fs/binfmt_misc")
_NATIVE = {"amd64": ("amd64", "386"), "arm64": ("arm64", "arm")}
# The names that qemu-user-static and tonistiigi/binfmt register.
_QEMU = {"amd64": "x86_64", "arm64": "aarch64", "386": "i386", "ppc64le": "ppc64le", "mips64le": "mips64el"}


def check_runnable(config: ImageConfig, binfmt: Path = BINFMT) -> None:
    """Raises `Unsupported`."""
    host = Platform.host().architecture
    wanted = config.architecture or host
    if config.os != "linux":
        raise Unsupported(f"the image is for {config.os}", hint="only Linux images run here")
    if wanted in _NATIVE.get(host, (host,)):
        return
    entry = binfmt / f"qemu-{_QEMU.get(wanted, wanted)}"
    try:
        if entry.read_text().startswith("enabled"):
            return
    except OSError:
        pass
    raise Unsupported(
        f"the image is for linux/{wanted} and this machine is {host}",
        hint=f"register an emulator (Debian: apt-get install qemu-user-static), or build for --platform linux/{host}",
    )
