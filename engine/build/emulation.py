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
        said = entry.read_text().splitlines()
    except OSError:
        said = []
    if said[:1] == ["enabled"]:
        if any(line.startswith("flags:") and "F" in line for line in said):
            return
        raise Unsupported(
            f"the image is for linux/{wanted}, and the emulator {entry.name} is registered without the flag F",
            hint="without it, the emulator would have to be in the image: register it with F (Debian: qemu-user-static)",
        )
    raise Unsupported(
        f"the image is for linux/{wanted} and this machine is {host}",
        hint=f"register an emulator (Debian: apt-get install qemu-user-static), or build for --platform linux/{host}",
    )
