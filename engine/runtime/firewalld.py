"""Where firewalld runs: our bridges in its zone `trusted`, else it refuses what our own rules let pass.

What firewalld accepts is still judged by our tables: nobody reaches a container by this who could not without firewalld. A
bridge that somebody has put into a zone stays there. (firewalld.dbus(5), firewalld.zones(5).)
"""

from __future__ import annotations

from engine.linux import dbus

ZONE = "trusted"
TABLE = b"firewalld\0"  # its own, in what nf_tables reports
_NAME, _PATH, _INTERFACE = (
    "org.fedoraproject.FirewallD1",
    "/org/fedoraproject/FirewallD1",
    "org.fedoraproject.FirewallD1.zone",
)
_ABSENT = ("org.freedesktop.DBus.Error.NameHasNoOwner", "org.freedesktop.DBus.Error.ServiceUnknown")


def admit(bridge: str, timeout: float = 5.0) -> str:
    """Puts the bridge into the zone. Returns what went wrong, "" where nothing did or no firewalld runs."""
    try:
        try:
            if _call("getZoneOfInterface", bridge, timeout=timeout):
                return ""
        except dbus.BusError as error:
            if error.name in _ABSENT:
                return ""
            if "UNKNOWN_INTERFACE" not in str(error):
                raise
        _call("addInterface", ZONE, bridge, timeout=timeout)
    except dbus.BusError as error:
        if "ZONE_ALREADY_SET" in str(error) or "ZONE_CONFLICT" in str(error):  # another of our processes was faster
            return ""
        return f"firewalld does not take {bridge} into its zone {ZONE}: {error}"
    except (OSError, ValueError):  # no system bus, or nobody there who answers
        return ""
    return ""


def dismiss(bridge: str) -> None:
    """Of a bridge that goes away."""
    try:
        _call("removeInterface", ZONE, bridge, timeout=2.0)
    except (dbus.BusError, OSError, ValueError):
        pass


def _call(member: str, *words: str, timeout: float) -> str:
    return dbus.call(_NAME, _PATH, _INTERFACE, member, *words, timeout=timeout)
