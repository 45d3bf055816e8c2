"""Programs that are in memory alone (memfd_create(2)), sealed: nothing in a container can change what it is executed from
(CVE-2019-5736)."""

from __future__ import annotations

import fcntl
import os

_MFD_EXEC = 0x10  # Linux 6.3: without it the kernel complains, or refuses
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, program: bytes) -> int:
    """A descriptor to execute. Raises OSError."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        fd = os.memfd_create(name, flags | _MFD_EXEC)
    except OSError:
        fd = os.memfd_create(name, flags)
    os.write(fd, program)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
    return fd
