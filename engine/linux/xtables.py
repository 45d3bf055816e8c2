"""What the host's iptables-legacy does with forwarded packets: read from the kernel by getsockopt(2), nothing is changed.

Its chains are not nf_tables', though both judge every packet, so no rule of ours can speak there without that program. See
include/uapi/linux/netfilter_ipv4/ip_tables.h and its IPv6 twin. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct

_GET_INFO, _GET_ENTRIES = 64, 65
_FORWARD = 2  # of the five hooks
_INFO = struct.Struct("=32sI5I5III")
_TARGET = 32  # struct xt_entry_target, before a standard verdict
# (names of the tables that are loaded, socket family, level, where struct ipt_entry has target_offset)
_FAMILIES = {
    4: ("/proc/thread-self/net/ip_tables_names", socket.AF_INET, socket.IPPROTO_IP, 88),
    6: ("/proc/thread-self/net/ip6_tables_names", socket.AF_INET6, socket.IPPROTO_IPV6, 140),
}
DROP = -1  # -NF_DROP - 1


def forward_drops(version: int, link: str) -> bool:
    """Whether the policy of the legacy filter table's FORWARD chain is to drop, and no rule of the table names `link`.

    False where there is no such table; asking does not load one. Raises OSError.
    """
    names, family, level, at = _FAMILIES[version]
    try:
        with open(names, encoding="ascii") as file:
            if "filter" not in file.read().split():
                return False
    except OSError:
        return False
    with socket.socket(family, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.IPPROTO_RAW) as sock:
        info = _INFO.unpack(_ask(sock, level, _GET_INFO, b"filter", _INFO.size))
        policy, size = info[7 + _FORWARD], info[13]
        # struct ipt_get_entries: name, size, padding to 8 bytes, the entries
        entries = _ask(sock, level, _GET_ENTRIES, struct.pack("=32sI", b"filter", size), 40 + size)[40:]
    if link.encode() + b"\0" in entries:
        return False  # the administrator has spoken about it
    (target,) = struct.unpack_from("=H", entries, policy + at)
    verdict = int(struct.unpack_from("=i", entries, policy + target + _TARGET)[0])
    return verdict == DROP


def _ask(sock: socket.socket, level: int, option: int, request: bytes, size: int) -> bytes:
    """getsockopt(2) with a request in the buffer, which Python's own does not pass on."""
    libc = ctypes.CDLL(None, use_errno=True)
    buffer = ctypes.create_string_buffer(request.ljust(size, b"\0"), size)
    length = ctypes.c_uint32(size)
    if libc.getsockopt(sock.fileno(), level, option, buffer, ctypes.byref(length)) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return buffer.raw
