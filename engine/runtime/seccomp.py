"""The default system call filter, compiled to BPF without a library.

The policy (`seccomp_default.json`) decides as Docker's default profile does, checked number by number against
moby/profiles seccomp/default.json at commit 3c28324314729dbade8287e868eef6338c42807a; where it differs it is stricter:

- arguments are compared as the 32 bits that the kernel uses (socket's family is an int: bits above would slip past a
  64-bit comparison);
- x32 calls, and the 32-bit ARM personality of an aarch64 host, are refused.

`syscalls.json` has the numbers (kernel headers 6.1, and the later common ones). A number it does not have is refused
with EPERM. i386's socketcall(2) cannot be looked into by a filter; it is allowed, as Docker does.
"""

from __future__ import annotations

import functools
import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from engine.errors import Unsupported

# linux/audit.h
_AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
FAMILY = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64",)}
_X32_BIT = 0x40000000

RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
_EPERM = 1

# linux/bpf_common.h
LD_W_ABS, JEQ, JGT, JGE, JSET, JA, RET = 0x20, 0x15, 0x25, 0x35, 0x45, 0x05, 0x06
_NR, _ARCH, ARGS = 0, 4, 16  # offsets in struct seccomp_data

_D = TypeVar("_D")
Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k
Check = tuple[int, str, int]  # argument, comparison, value
Decision = int | tuple[Check, ...]  # a return value; or allow when one of these holds


def errno(number: int) -> int:
    return _RET_ERRNO | number


@functools.cache
def _data(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return document


def numbers(table: str) -> Mapping[str, int]:
    """Name to number of one architecture's calls."""
    found: Mapping[str, int] = _data("syscalls.json")[table]
    return found


def decisions(calls: Mapping[str, int], machine: str, capabilities: Iterable[str]) -> dict[int, Decision]:
    """What the policy says to each number of one table, on a host of `machine`, given the container's capabilities."""
    policy, have = _data("seccomp_default.json"), set(capabilities)
    withheld = {name for names in policy["withheld"].values() for name in names}
    guarded = {name for names in policy["capabilities"].values() for name in names}
    granted = {name for cap, names in policy["capabilities"].items() if cap in have for name in names}
    result: dict[int, Decision] = {}
    for name, number in calls.items():
        if name in withheld or policy["only"].get(name, machine) != machine:
            continue
        if name in granted or (name not in guarded and name not in policy["arguments"]):
            result[number] = RET_ALLOW
        elif name in policy["arguments"]:
            result[number] = tuple((index, op, value) for index, op, value in policy["arguments"][name])
        elif name in policy["errno"]:
            result[number] = errno(policy["errno"][name])
    return result


def _check(check: Check) -> list[Instruction]:
    """Falls through when the check fails, returns ALLOW when it holds."""
    index, op, value = check
    load = (LD_W_ABS, 0, 0, ARGS + 8 * index)  # the low word: both architectures are little-endian
    allow = (RET, 0, 0, RET_ALLOW)
    if op == "eq":
        return [load, (JEQ, 0, 1, value), allow]
    if op == "gt":
        return [load, (JGT, 0, 1, value), allow]
    if op == "lt":
        return [load, (JGE, 1, 0, value), allow]
    if op == "none":  # none of these bits
        return [load, (JSET, 1, 0, value), allow]
    raise ValueError(f"unknown comparison {op!r}")


def _leaf(decision: Decision) -> list[Instruction]:
    if isinstance(decision, int):
        return [(RET, 0, 0, decision)]
    return [instruction for check in decision for instruction in _check(check)] + [(RET, 0, 0, errno(_EPERM))]


def tree(ranges: Sequence[tuple[int, _D]], leaf: Callable[[_D], list[Instruction]]) -> list[Instruction]:
    """A binary search over (first number, decision), the number being in the accumulator."""
    if len(ranges) == 1:
        return leaf(ranges[0][1])
    middle = len(ranges) // 2
    left, right = tree(ranges[:middle], leaf), tree(ranges[middle:], leaf)
    first = ranges[middle][0]
    if len(left) <= 255:  # conditional jumps reach that far
        return [(JGE, len(left), 0, first), *left, *right]
    return [(JGE, 0, 1, first), (JA, 0, 0, len(left)), *left, *right]


def ranges(table: Mapping[int, _D], default: _D) -> list[tuple[int, _D]]:
    """Neighbours with the same answer as one range; gaps are `default`."""
    result: list[tuple[int, _D]] = [(0, default)]
    for number in sorted(table):
        for at, decision in ((number, table[number]), (number + 1, default)):
            if result[-1][0] == at:
                result.pop()
            if not result or result[-1][1] != decision:
                result.append((at, decision))
    return result


def assemble(tables: Mapping[str, list[Instruction]]) -> list[Instruction]:
    """The program for several architectures, from what each does with the number. Another architecture's calls, and x32's,
    are refused. Raises ValueError when it is too long."""
    program: list[Instruction] = [(LD_W_ABS, 0, 0, _ARCH)]
    for name, decide in tables.items():
        body: list[Instruction] = [(LD_W_ABS, 0, 0, _NR)]
        if name == "x86_64":
            body += [(JGE, 0, 1, _X32_BIT), (RET, 0, 0, errno(_EPERM))]
        body += decide
        program += [(JEQ, 1, 0, _AUDIT_ARCH[name]), (JA, 0, 0, len(body)), *body]
    program.append((RET, 0, 0, errno(_EPERM)))
    if len(program) > 4096:  # BPF_MAXINSNS
        raise ValueError("the filter is longer than the kernel takes")
    return program


def to_bytes(program: Sequence[Instruction]) -> bytes:
    return b"".join([struct.pack("=HBBI", *instruction) for instruction in program])


@functools.cache
def default_program(capabilities: frozenset[str], machine: str = "") -> bytes:
    """The default filter for a container with these capabilities, as the bytes that seccomp(2) takes."""
    machine = machine or os.uname().machine
    if machine not in FAMILY:
        raise Unsupported(f"no system call filter for {machine}", hint="containers run on x86_64 and aarch64")
    refused: Decision = errno(_EPERM)
    return to_bytes(
        assemble(
            {
                name: tree(ranges(decisions(numbers(name), machine, capabilities), refused), _leaf)
                for name in FAMILY[machine]
            }
        )
    )
