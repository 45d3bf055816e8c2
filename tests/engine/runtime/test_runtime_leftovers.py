"""Networks of data roots that are gone do not stand in the way of others, nor translate their packets."""

from __future__ import annotations

import dataclasses
import os
import select
import shutil
import signal
from pathlib import Path

import pytest

from engine.linux import netlink as nl
from engine.linux import nftables as nft
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink
from engine.runtime import bridges
from engine.runtime.client import Runtime
from engine.runtime.netconfig import NetworkConfig
from tests.patience import PATIENCE

from .conftest import MakeBox, supervisor_pid
from .test_runtime_network import network

__all__ = ["network"]  # a fixture
pytestmark = pytest.mark.root


def other_than(network: NetworkConfig) -> NetworkConfig:
    """Another network with the same subnet."""
    identity = os.urandom(32).hex()
    return dataclasses.replace(network, id=identity, bridge=f"wb-{identity[:12]}")


def test_a_bridge_whose_root_is_gone_gives_its_subnet_back(network: NetworkConfig, tmp_path: Path) -> None:
    second = other_than(network)
    with Netlink(nl.ROUTE) as host, nft.open_socket() as filters:
        bridges.Membership(str(tmp_path / "one"), network, host, filters).leave()
        shutil.rmtree(tmp_path / "one")
        try:
            member = bridges.Membership(str(tmp_path / "two"), second, host, filters)
            assert rt.get_link(host, network.bridge) is None
            assert not nft.has_table(filters, nft.INET, network.bridge)
            assert rt.get_link(host, second.bridge) is not None
            member.leave()
        finally:
            bridges.reap(str(tmp_path / "two"), 0)
            bridges.remove(network, host)
        assert rt.get_link(host, second.bridge) is None


def test_a_bridge_that_somebody_is_on_stays(network: NetworkConfig, tmp_path: Path) -> None:
    second = other_than(network)
    with Netlink(nl.ROUTE) as host, nft.open_socket() as filters:
        member = bridges.Membership(str(tmp_path / "one"), network, host, filters)
        try:
            with pytest.raises(bridges.NetworkError, match="in use"):
                bridges.Membership(str(tmp_path / "two"), second, host, filters)
            assert rt.get_link(host, network.bridge) is not None
        finally:
            member.leave()
            bridges.reap(str(tmp_path / "one"), 0)
            bridges.reap(str(tmp_path / "two"), 0)


def test_a_table_whose_bridge_is_gone_goes_with_the_next_network(network: NetworkConfig, tmp_path: Path) -> None:
    second = other_than(network)
    with Netlink(nl.ROUTE) as host, nft.open_socket() as filters:
        bridges.Membership(str(tmp_path / "one"), network, host, filters).leave()
        host.send([rt.delete_link(network.bridge)])
        assert nft.has_table(filters, nft.INET, network.bridge)
        try:
            bridges.Membership(str(tmp_path / "two"), second, host, filters).leave()
            assert not nft.has_table(filters, nft.INET, network.bridge)
            assert network.bridge not in nft.tables(filters, nft.INET)
            assert second.bridge in nft.tables(filters, nft.INET)
        finally:
            bridges.reap(str(tmp_path / "one"), 0)
            bridges.reap(str(tmp_path / "two"), 0)


def test_a_supervisor_whose_folder_is_removed_ends(tmp_path: Path) -> None:
    """Nobody can reach it any more, and it would hold an inotify instance for ever."""
    runtime = Runtime(tmp_path / "run")
    runtime._supervisor().close()
    pidfd = os.pidfd_open(supervisor_pid(runtime))
    try:
        shutil.rmtree(runtime.run_dir)
        assert select.select([pidfd], [], [], 20)[0]
    finally:
        os.close(pidfd)


def test_a_supervisor_whose_data_root_is_removed_ends_after_its_last_container(tmp_path: Path, box: MakeBox) -> None:
    root = tmp_path / "data"
    root.mkdir()
    runtime = Runtime(tmp_path / "run", ("true", str(root)))
    runtime._supervisor().close()
    pidfd = os.pidfd_open(supervisor_pid(runtime))
    try:
        one = box("sleep", "600")
        one.runtime = runtime
        one.start()
        root.rmdir()
        root.mkdir()  # anew, and gone again: the second one counts, too
        root.rmdir()
        assert supervisor_pid(runtime)
        runtime.signal(one.id, signal.SIGKILL)
        assert one.wait() == 137
        assert select.select([pidfd], [], [], PATIENCE)[0]
        with pytest.raises(FileNotFoundError):
            supervisor_pid(runtime)
    finally:
        os.close(pidfd)
