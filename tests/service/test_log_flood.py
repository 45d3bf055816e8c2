"""More output than a disk likes: every line is there and in order, or (mode=non-blocking) counted."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.errors import EngineError
from engine.local import LocalEngine
from engine.model import ContainerSpec, LogConfig
from engine.service.images import BASE
from engine.service.logs import LogReader
from tests.patience import PATIENCE

pytestmark = pytest.mark.root
Make = Callable[..., str]
# Lines of 1000 bytes, each with its number, in blocks of a megabyte.
WRITER = (
    "import os, sys\n"
    "count = int(sys.argv[1])\n"
    "for start in range(0, count, 1000):\n"
    "    block = b''.join(b'%08d %s\\n' % (n, b'x' * 990) for n in range(start, min(start + 1000, count)))\n"
    "    while block: block = block[os.write(1, block):]\n"
)


@pytest.fixture
def engine(data_root: Path) -> Iterator[LocalEngine]:
    engine = LocalEngine(data_root)
    engine._images.ensure_base()
    yield engine
    engine._store.close()


@pytest.fixture
def make(engine: LocalEngine) -> Iterator[Make]:
    made = []

    def create(count: int, **options: str) -> str:
        log = LogConfig("json-file", {name.replace("_", "-"): value for name, value in options.items()})
        spec = ContainerSpec(BASE, command=("python3", "-c", WRITER, str(count)), log_config=log, network_mode="none")
        made.append(engine._containers.create(spec))
        return made[-1]

    yield create
    for one in made:
        with contextlib.suppress(EngineError):
            engine._containers.remove(one, force=True)


def log_path(engine: LocalEngine, container_id: str) -> Path:
    return Path(engine._containers.detail(container_id).log_path)


def numbers(reader: LogReader) -> list[int]:
    return [int(record.text[:8]) for batch in reader.records() for record in batch if record.stream == "stdout"]


def test_a_hundred_megabytes_at_full_speed_are_all_there(engine: LocalEngine, make: Make) -> None:
    count = 100_000
    one = make(count)
    began = time.monotonic()
    engine._containers.start(one)
    assert engine._containers.life.wait(one) == 0
    print(f"{count / 1000 / (time.monotonic() - began):.0f} MB/s with the start")
    with LogReader(log_path(engine, one)) as reader:
        assert numbers(reader) == list(range(count))


def test_a_follower_over_files_put_aside_misses_nothing(engine: LocalEngine, make: Make) -> None:
    """Twenty files of 2 MB, compressed behind it."""
    count = 30_000
    one = make(count, max_size="2m", max_file="30", compress="true")
    found: list[int] = []
    done = threading.Event()
    engine._containers.start(one)

    def follow() -> None:
        with LogReader(log_path(engine, one)) as reader:
            while True:
                last = done.is_set()
                found.extend(numbers(reader))
                if last:
                    return

    thread = threading.Thread(target=follow)
    thread.start()
    engine._containers.life.wait(one)
    done.set()
    thread.join()
    assert found == list(range(count))
    path = log_path(engine, one)
    sizes = [entry.stat().st_size for entry in path.parent.glob(f"{path.name}*") if not entry.name.endswith(".gz")]
    record = 1100
    assert max(sizes) <= 2_000_000 + record, "at most the record that made it full is above max-size, as with Docker"


def writer_of(monitor: int) -> int:
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{entry}/stat").read_text()
            if "(wb-log)" in stat and stat.rpartition(")")[2].split()[1] == str(monitor):
                return int(entry)
    raise AssertionError("no process writes the log")


def test_a_slow_disk_does_not_hold_up_who_asked_not_to_wait(engine: LocalEngine, make: Make) -> None:
    count = 20_000
    one = make(count, mode="non-blocking", max_buffer_size="2m")
    engine._containers.start(one)
    state: Any = engine._containers.life.state(one)
    writer = writer_of(state.monitor_pid)
    os.kill(writer, signal.SIGSTOP)  # a disk that takes nothing for a while
    try:
        end = time.monotonic() + PATIENCE
        while Path(f"/proc/{state.pid}").exists() and time.monotonic() < end:
            time.sleep(0.01)
        assert not Path(f"/proc/{state.pid}").exists(), "the program waited for the log"
    finally:
        os.kill(writer, signal.SIGCONT)
    assert engine._containers.life.wait(one) == 0
    with LogReader(log_path(engine, one)) as reader:
        records = [record for batch in reader.records() for record in batch]
    kept = [int(record.text[:8]) for record in records if record.stream == "stdout"]
    said = [record.text for record in records if record.stream == "workbench"]
    assert kept == sorted(set(kept)), "what was kept is in order"
    assert 1000 < len(kept) < count, "two megabytes were, and no more than there was room for"
    assert sum(int(re.findall("[0-9]+", text)[0]) for text in said) == count - len(kept)
    assert any(
        f"{count - len(kept)} log lines were dropped" in note for note in engine._containers.life.state(one).notes
    )


def test_nothing_is_dropped_where_the_disk_keeps_up(engine: LocalEngine, make: Make) -> None:
    one = make(3_000, mode="non-blocking", max_buffer_size="100m", max_size="1m", max_file="9", compress="true")
    engine._containers.start(one)
    assert engine._containers.life.wait(one) == 0
    with LogReader(log_path(engine, one)) as reader:
        assert numbers(reader) == list(range(3_000))
