"""Two data roots that start their first container at the same moment choose different subnets."""

from __future__ import annotations

import ipaddress
import os
import threading
from pathlib import Path

import pytest

from engine.runtime import claims
from engine.runtime.client import Runtime
from engine.runtime.places import runtime_dir
from engine.service.containers import ContainerService
from engine.store.store import Store


def test_claims_of_others_count_for_a_while(tmp_path: Path) -> None:
    net = ipaddress.ip_network("172.30.0.0/16")
    assert claims.others("a", tmp_path / "none") == []
    claims.claim("a", [net], tmp_path)
    assert claims.others("a", tmp_path) == []
    assert claims.others("b", tmp_path) == [net]
    os.utime(tmp_path / "a", (0, 0))
    assert claims.others("b", tmp_path) == []
    assert not (tmp_path / "a").exists()
    (tmp_path / "c").write_text("no subnet")
    assert claims.others("b", tmp_path) == []


@pytest.mark.root
def test_two_roots_at_once(tmp_path: Path) -> None:
    chosen: dict[str, object] = {}
    barrier = threading.Barrier(4)

    def first_container(root: Path) -> None:
        store = Store(root)
        service = ContainerService(store, Runtime(runtime_dir(root)), ())
        record = service.networks.find("bridge")
        barrier.wait()
        chosen[record.id] = service.endpoints._usable(record).pools[0].subnet
        store.close()

    threads = [threading.Thread(target=first_container, args=(tmp_path / str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for network in chosen:
        (claims.FOLDER / network).unlink()
    assert len(set(chosen.values())) == 4
