"""What mounting an overlay says where it cannot be."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from engine.linux import overlay


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENODEV, "modprobe overlay"), (errno.EINVAL, "choose another with --root"), (errno.EPERM, "not permitted")],
)
def test_the_next_step_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, number: int, words: str) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(overlay, "mount", refuse)
    with pytest.raises(OSError, match=words) as caught:
        overlay.mount_overlay([str(tmp_path)], str(tmp_path), str(tmp_path), str(tmp_path))
    assert caught.value.errno == number
