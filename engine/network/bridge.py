"""What a bridge network is made of: its link's name and Docker's driver options. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from engine.errors import AccessDenied, InvalidInput, Unsupported
from engine.network.ports import check_host_ip

PREFIX = "com.docker.network."
_NAME = re.compile(r"[^\s/:\0-\x1f-](?:[^/:\0-\x1f]{0,126}[^\s/:\0-\x1f])?")  # a label, never a path or a link
_LINK = re.compile(r"[^\s/:%]{1,15}")


@dataclass(frozen=True, slots=True)
class BridgeOptions:
    """`mtu` 0 is that of the host's way out, 1500 at most."""

    link: str = ""
    icc: bool = True
    masquerade: bool = True
    host_ip: str = ""  # where `-p 80` binds when it names no address
    mtu: int = 0


def check_network_name(name: str) -> str:
    """`name`, or InvalidInput, AccessDenied."""
    if not _NAME.fullmatch(name):
        raise InvalidInput(
            f"network name {name!r} is invalid",
            hint="up to 128 characters without / and :, no space at its ends, no - first",
        )
    if name in ("bridge", "host", "none", "default", "container"):
        raise AccessDenied(f"operation is not permitted on predefined {name} network")
    return name


def link_name(identity: str) -> str:
    """The bridge of a network: "wb-" and twelve digits fill the fifteen characters of a link's name, and no other data
    root or engine has the same."""
    return f"wb-{identity[:12]}"


def default_options(link: str) -> dict[str, str]:
    """What `network inspect bridge` shows of the default bridge, as Docker does."""
    bridge = PREFIX + "bridge."
    return {
        bridge + "default_bridge": "true",
        bridge + "enable_icc": "true",
        bridge + "enable_ip_masquerade": "true",
        bridge + "host_binding_ipv4": "0.0.0.0",
        bridge + "name": link,
        PREFIX + "driver.mtu": "1500",
    }


def _switch(key: str, value: str) -> bool:
    if value.lower() in ("true", "1", "t"):
        return True
    if value.lower() in ("false", "0", "f"):
        return False
    raise InvalidInput(f"network option {key}={value}: it is true or false")


def parse_options(options: Mapping[str, str]) -> BridgeOptions:
    """Raises InvalidInput for a bad value, Unsupported for one of Docker's options that would be without effect. Other names are
    kept for whoever gave them, as Docker's bridge driver does."""
    values: dict[str, object] = {}
    for key, value in options.items():
        if key == f"{PREFIX}bridge.name":
            if not _LINK.fullmatch(value) or value in (".", ".."):
                raise InvalidInput(f"network option {key}={value}: that is no name for a link")
            values["link"] = value
        elif key == f"{PREFIX}bridge.enable_icc":
            values["icc"] = _switch(key, value)
        elif key == f"{PREFIX}bridge.enable_ip_masquerade":
            values["masquerade"] = _switch(key, value)
        elif key == f"{PREFIX}bridge.host_binding_ipv4":
            values["host_ip"] = check_host_ip(value)
        elif key == f"{PREFIX}driver.mtu":
            if not value.isdigit() or not 68 <= int(value) <= 65535:
                raise InvalidInput(f"network option {key}={value}: an MTU is 68 to 65535")
            values["mtu"] = int(value)
        elif key == f"{PREFIX}bridge.default_bridge":
            _switch(key, value)
        elif key.startswith(PREFIX):
            raise Unsupported(
                f"network option {key} is not known to this engine",
                hint="bridge.name, bridge.enable_icc, bridge.enable_ip_masquerade, bridge.host_binding_ipv4, driver.mtu are",
            )
    return BridgeOptions(**values)  # type: ignore[arg-type]
