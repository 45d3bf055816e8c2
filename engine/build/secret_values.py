"""The values of `--secret`: read when a step asks for them, kept in memory, never part of a key, a log or a record."""

from __future__ import annotations

import os
import stat

from engine.errors import InvalidInput, from_os_error
from engine.model import BuildRequest

MAX_SECRET = 500 * 1024  # bytes, as in BuildKit


def read_secret(request: BuildRequest, id: str) -> bytes | None:
    """None when no secret has that id. Raises `InvalidInput`, `NotFound`, `AccessDenied`."""
    secret = next((s for s in request.secrets if s.id == id), None)
    if secret is None:
        return None
    if secret.value is not None:
        data = secret.value
    elif secret.path is not None:
        try:
            with open(os.open(secret.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
                if stat.S_ISDIR(os.fstat(file.fileno()).st_mode):
                    raise InvalidInput(f"the secret {id}: {secret.path} is a folder")
                data = file.read(MAX_SECRET + 1)
        except OSError as error:
            raise from_os_error(error, f"reading the secret {id}") from error
    else:
        if secret.variable not in os.environ:
            return None
        data = os.environb[os.fsencode(secret.variable)]
    if len(data) > MAX_SECRET:
        raise InvalidInput(f"the secret {id} is larger than {MAX_SECRET} bytes")
    return data
