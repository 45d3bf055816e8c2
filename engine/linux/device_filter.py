"""The device filter of cgroup v2: a BPF program attached to the group, since v2 has no file for it.

The program gets a `struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor }` (linux/bpf.h) whose access_type
holds the kind in its low half (1 block, 2 character) and what is asked for in the high one (1 mknod, 2 read, 4 write),
and answers 1 to allow. The rules are OCI's: in force in order, so the last that matches decides; this is why the program
asks them from last to first. An allowing rule must cover all that is asked for; a denying one meets any part of it.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from engine.linux import libc

_NR_BPF = 321 if libc.MACHINE == "x86_64" else 280
_PROG_LOAD, _PROG_ATTACH = 5, 8
_TYPE_CGROUP_DEVICE, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI = 15, 6, 2
_KIND = {"b": 1, "c": 2}
_ACCESS = {"m": 1, "r": 2, "w": 4}

# bpf_insn codes (linux/bpf.h, bpf_common.h)
_LOAD_W, _MOV_X, _MOV_K, _AND_K, _RSH_K, _JEQ_K, _JNE_K, _JSET_K, _EXIT = (
    0x61, 0xBC, 0xB4, 0x54, 0x74, 0x16, 0x56, 0x46, 0x95,
)  # fmt: skip


def instruction(code: int, to: int = 0, source: int = 0, jump: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, to | source << 4, jump, value - (1 << 32) if value >= 1 << 31 else value)


def program(rules: Sequence[dict[str, Any]]) -> bytes:
    """The rules (OCI's `linux.resources.devices`) as BPF; what no rule speaks of is refused."""
    code = b"".join((
        instruction(_LOAD_W, 2, 1, 0),  # r2 = access_type
        instruction(_MOV_X, 3, 2),  # r3 = what is asked for
        instruction(_RSH_K, 3, value=16),
        instruction(_AND_K, 2, value=0xFFFF),  # r2 = kind
        instruction(_LOAD_W, 4, 1, 4),  # r4 = major
        instruction(_LOAD_W, 5, 1, 8),  # r5 = minor
    ))  # fmt: skip
    for rule in reversed(rules):
        code += _rule(rule)
        if _speaks_of_all(rule):
            return code
    return code + _answer(False)


def _answer(allow: bool) -> bytes:
    return instruction(_MOV_K, 0, value=int(allow)) + instruction(_EXIT)


def _speaks_of_all(rule: dict[str, Any]) -> bool:
    whole = set(rule.get("access") or "rwm") == set("rwm")
    return whole and rule.get("type", "a") == "a" and not any(rule.get(key, -1) >= 0 for key in ("major", "minor"))


def _rule(rule: dict[str, Any]) -> bytes:
    """Falls through behind the answer when the rule does not match."""
    answer = _answer(bool(rule["allow"]))
    asked = sum(_ACCESS[letter] for letter in set(rule.get("access") or "rwm"))
    checks: list[tuple[int, int, int]] = []  # jump code that leaves the rule, register, value
    kind = rule.get("type", "a")
    if kind != "a":
        checks.append((_JNE_K, 2, _KIND[kind]))
    # Allowing: nothing beyond the rule is asked for. Denying: something of it is.
    if asked != 7 and rule["allow"]:
        checks.append((_JSET_K, 3, 7 & ~asked))
    for key, register in (("major", 4), ("minor", 5)):
        if rule.get(key, -1) >= 0:
            checks.append((_JNE_K, register, int(rule[key])))
    length = len(checks) + len(answer) // 8
    code = b""
    if asked != 7 and not rule["allow"]:
        # No "jump if none of these bits": JSET over a jump that leaves.
        code = instruction(_JSET_K, 3, jump=1, value=asked) + instruction(0x05, jump=length)
    for index, (jump, register, value) in enumerate(checks):
        code += instruction(jump, register, jump=length - index - 1, value=value)
    return code + answer


def interpret(code: bytes, kind: str, major: int, minor: int, access: str) -> bool:
    """What the program answers: for tests on hosts that do not let it be loaded."""
    registers = [0] * 11
    context = (_KIND[kind] | sum(_ACCESS[letter] for letter in access) << 16, major, minor)
    position = 0
    while True:
        operation, pair, jump, value = struct.unpack_from("=BBhi", code, position * 8)
        to, source, constant = pair & 15, pair >> 4, value & 0xFFFFFFFF
        position += 1
        if operation == _LOAD_W:
            registers[to] = context[jump // 4]
        elif operation == _MOV_X:
            registers[to] = registers[source]
        elif operation == _MOV_K:
            registers[to] = constant
        elif operation == _AND_K:
            registers[to] &= constant
        elif operation == _RSH_K:
            registers[to] >>= constant
        elif operation == _EXIT:
            return bool(registers[0])
        elif operation == 0x05:
            position += jump
        elif operation in (_JEQ_K, _JNE_K, _JSET_K):
            holds = {
                _JEQ_K: registers[to] == constant,
                _JNE_K: registers[to] != constant,
                _JSET_K: bool(registers[to] & constant),
            }
            position += jump if holds[operation] else 0
        else:
            raise ValueError(f"unknown instruction {operation:#x}")


def load(code: bytes) -> int:
    """A descriptor of the loaded program. Raises OSError (with the verifier's last words)."""
    instructions = ctypes.create_string_buffer(code, len(code))
    licence = ctypes.create_string_buffer(b"Apache-2.0")
    log = ctypes.create_string_buffer(1 << 14)
    attributes = struct.pack(
        "=IIQQIIQIIQ", _TYPE_CGROUP_DEVICE, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence),
        1, len(log), ctypes.addressof(log), 0, 0, 0,
    )  # fmt: skip
    try:
        return libc.syscall(_NR_BPF, _PROG_LOAD, attributes.ljust(128, b"\0"), 128, what="bpf")
    except OSError as error:
        last = log.value.decode(errors="replace").strip().splitlines()[-1:]
        raise OSError(
            error.errno, f"the device filter cannot be loaded: {os.strerror(error.errno or 0)} {last}"
        ) from None


def attach(group: Path, rules: Sequence[dict[str, Any]]) -> None:
    """Puts the rules in force for `group` (a v2 directory) and what is below it. The kernel keeps the program for as
    long as the group exists. Raises OSError."""
    code = load(program(rules))
    folder = os.open(group, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        attributes = struct.pack("=IIII", folder, code, _ATTACH_CGROUP_DEVICE, _ALLOW_MULTI)
        libc.syscall(_NR_BPF, _PROG_ATTACH, attributes.ljust(128, b"\0"), 128, what="bpf")
    finally:
        os.close(folder)
        os.close(code)


def lines_v1(rules: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """(file, line) of cgroup v1's devices controller, in order."""
    for rule in rules:
        file = "devices.allow" if rule["allow"] else "devices.deny"
        if _speaks_of_all(rule):
            yield file, "a"
            continue
        numbers = [str(rule[key]) if rule.get(key, -1) >= 0 else "*" for key in ("major", "minor")]
        yield file, f"{rule.get('type', 'a')} {numbers[0]}:{numbers[1]} {rule.get('access') or 'rwm'}"
