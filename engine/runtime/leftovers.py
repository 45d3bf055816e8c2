"""What dead data roots have left of their networks on this host: a table without its bridge would go on translating a subnet that
another root has taken since, and an idle bridge keep one.

Which run directory a bridge belongs to stands in `/run/workbench/bridges/<bridge>`. All of it happens under the host's lock.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterable

from engine.linux import nftables as nft
from engine.linux import pseudo
from engine.linux import rtnetlink as rt
from engine.linux.netlink import Netlink
from engine.runtime import firewall
from engine.runtime.netconfig import NetworkConfig

FOLDER = "/run/workbench/bridges"
_OURS = re.compile(r"wb-([0-9a-f]{12})")


def note_owner(bridge: str, run_dir: str) -> None:
    with contextlib.suppress(OSError):  # an ordinary user, whose bridges nobody else sees
        os.makedirs(FOLDER, mode=0o700, exist_ok=True)
        with open(f"{FOLDER}/{bridge}", "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(run_dir)


def forget_owner(bridge: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(f"{FOLDER}/{bridge}")


def sweep_tables(host: Netlink, filters: Netlink) -> None:
    """Removes the tables, and the ways past a foreign policy, of networks whose bridge is gone: a bridge is made before them and removed
    after them."""
    there = {link.name for link in rt.links(host)}
    found = {name for family in (nft.INET, nft.BRIDGE) for name in nft.tables(filters, family)}
    found |= {f"wb-{identity}" for identity in firewall.passing(filters)}
    for name in found - there:
        if _OURS.fullmatch(name):
            firewall.remove(filters, _known_by(name))


def _known_by(bridge: str) -> NetworkConfig:
    return NetworkConfig(bridge.removeprefix("wb-"), bridge, bridge)


def clear_the_way(
    names: Iterable[str],
    host: Netlink,
    remove: Callable[[NetworkConfig, Netlink], None],
    reap: Callable[[str, str], None],
) -> None:
    """Removes those of the bridges `names` that belong to a run directory which is gone, and has `reap(run_dir, bridge)` look after
    those of another one. One with a container on it stays."""
    for name in names:
        link = rt.get_link(host, name) if _OURS.fullmatch(name) else None
        if link is None or any(port.master == link.index for port in rt.links(host)):
            continue
        try:
            owner = pseudo.read(f"{FOLDER}/{name}")
        except OSError:
            continue  # of an older version: nobody knows whose it is
        if os.path.exists(os.path.join(owner, "net", name)):
            reap(owner, name)
        else:
            remove(_known_by(name), host)
