"""What a monitor that was killed has left of its container's network is taken away."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from typing import Any

from engine.linux import nftables as nft
from engine.runtime import firewall, usernet
from engine.runtime.bridges import FOLDER
from engine.runtime.netconfig import Endpoint, endpoint_from_json, published_from_json


def bury(run_dir: str, report: dict[str, Any] | None) -> None:
    """Removes what a monitor that was killed has left of its container's network (`report` from its state file)."""
    if not report:
        return
    endpoints = [endpoint_from_json(each) for each in report["endpoints"]]
    usernet.inside(run_dir, lambda: _bury_filters(report, endpoints))
    for endpoint in endpoints:
        with contextlib.suppress(OSError):
            os.unlink(os.path.join(run_dir, FOLDER, f"{endpoint.network.bridge}.d", endpoint.id[:12]))


def _bury_filters(report: dict[str, Any], endpoints: Sequence[Endpoint]) -> None:
    published = published_from_json(report["published"])
    with contextlib.suppress(OSError), nft.open_socket() as filters:
        for endpoint in endpoints:
            if endpoint.default and published:
                firewall.withdraw(filters, published, endpoint)
            if report["block_metadata"]:
                firewall.set_guard(filters, endpoint, on=False)
