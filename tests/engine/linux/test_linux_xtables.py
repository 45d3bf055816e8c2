"""The policy of iptables-legacy, set by that program itself in a network namespace of the test's own."""

from __future__ import annotations

import subprocess

import pytest

from engine.linux import xtables
from engine.runtime import firewall
from engine.runtime.netconfig import NetworkConfig
from tests.engine.linux.test_linux_netlink import apart

pytestmark = [pytest.mark.root, pytest.mark.peer("iptables-legacy")]
NETWORK = NetworkConfig("f" * 64, "t", "wb-ffffffffffff", gateway4="10.9.0.1/24", gateway6="fd09::1/64")


def legacy(*words: str, program: str = "iptables-legacy") -> None:
    ran = subprocess.run([program, *words], capture_output=True, text=True, check=False)
    if ran.returncode and "Table does not exist" in ran.stderr + ran.stdout:
        pytest.skip("this kernel has no x_tables filter table")
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(("program", "version"), [("iptables-legacy", 4), ("ip6tables-legacy", 6)])
def test_a_policy_that_drops_is_seen_and_told(program: str, version: int) -> None:
    def work() -> None:
        legacy("-P", "FORWARD", "ACCEPT", program=program)
        assert not xtables.forward_drops(version, NETWORK.bridge)
        assert firewall.blocked(NETWORK) == ""
        legacy("-P", "FORWARD", "DROP", program=program)
        legacy("-A", "FORWARD", "-i", "wb-fff", "-j", "ACCEPT", program=program)  # another link's
        assert xtables.forward_drops(version, NETWORK.bridge)
        told = firewall.blocked(NETWORK)
        assert f"{program} -I FORWARD -i {NETWORK.bridge} -j ACCEPT" in told
        legacy("-I", "FORWARD", "-i", NETWORK.bridge, "-j", "ACCEPT", program=program)
        assert not xtables.forward_drops(version, NETWORK.bridge), "what was advised helps"

    apart(work)
