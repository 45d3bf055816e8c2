"""The embedded base image: what it holds, and that it is equal each time."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sysconfig
import tarfile

from engine.service.base_image import write_base_layer


def test_compiled_modules_come_with_the_time_that_their_source_has_in_the_image() -> None:
    first, second = io.BytesIO(), io.BytesIO()
    write_base_layer(first)
    write_base_layer(second)
    assert first.getvalue() == second.getvalue()
    source = os.path.realpath(
        json.decoder.__file__
    )  # imported here: the host has its compiled form, or can't write one
    cached = importlib.util.cache_from_source(source)
    assert source.startswith(os.path.realpath(sysconfig.get_path("stdlib")))
    first.seek(0)
    with tarfile.open(fileobj=first) as tar:
        member = tar.getmember(source.lstrip("/"))
        assert member.mtime == 0
        names = tar.getnames()
        assert (cached.lstrip("/") in names) == os.path.exists(cached)
        if os.path.exists(cached):
            file = tar.extractfile(cached.lstrip("/"))
            assert file is not None
            header = file.read(16)
            assert header[:4] == importlib.util.MAGIC_NUMBER
            assert header[4:12] == bytes(8)
            assert int.from_bytes(header[12:], "little") == member.size
