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
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.errors import Unsupported

# linux/audit.h
_AUDIT_ARCH = {"x86_64": 0xC000003E, "i386": 0x40000003, "aarch64": 0xC00000B7}
_FAMILY = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64",)}
_X32_BIT = 0x40000000

RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
_EPERM = 1

# linux/bpf_common.h
_LD_W_ABS, _JEQ, _JGT, _JGE, _JSET, _JA, _RET = 0x20, 0x15, 0x25, 0x35, 0x45, 0x05, 0x06
_NR, _ARCH, _ARGS = 0, 4, 16  # offsets in struct seccomp_data

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, k
Check = tuple[int, str, int]  # argument, comparison, value
Decision = int | tuple[Check, ...]  # a return value; or allow when one of these holds


def errno(number: int) -> int:
    return _RET_ERRNO | number


@functools.cache
def _data(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((Path(__file__).parent / name).read_text(encoding="utf-8"))
    return document


def decisions(numbers: Mapping[str, int], machine: str, capabilities: Iterable[str]) -> dict[int, Decision]:
    """What the policy says to each number of one table, on a host of `machine`, given the container's capabilities."""
    policy, have = _data("seccomp_default.json"), set(capabilities)
    withheld = {name for names in policy["withheld"].values() for name in names}
    guarded = {name for names in policy["capabilities"].values() for name in names}
    granted = {name for cap, names in policy["capabilities"].items() if cap in have for name in names}
    result: dict[int, Decision] = {}
    for name, number in numbers.items():
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
    load = (_LD_W_ABS, 0, 0, _ARGS + 8 * index)  # the low word: both architectures are little-endian
    allow = (_RET, 0, 0, RET_ALLOW)
    if op == "eq":
        return [load, (_JEQ, 0, 1, value), allow]
    if op == "gt":
        return [load, (_JGT, 0, 1, value), allow]
    if op == "lt":
        return [load, (_JGE, 1, 0, value), allow]
    if op == "none":  # none of these bits
        return [load, (_JSET, 1, 0, value), allow]
    raise ValueError(f"unknown comparison {op!r}")


def _leaf(decision: Decision) -> list[Instruction]:
    if isinstance(decision, int):
        return [(_RET, 0, 0, decision)]
    return [instruction for check in decision for instruction in _check(check)] + [(_RET, 0, 0, errno(_EPERM))]


def _tree(ranges: Sequence[tuple[int, Decision]]) -> list[Instruction]:
    """A binary search over (first number, decision), the number being in the accumulator."""
    if len(ranges) == 1:
        return _leaf(ranges[0][1])
    middle = len(ranges) // 2
    left, right = _tree(ranges[:middle]), _tree(ranges[middle:])
    first = ranges[middle][0]
    if len(left) <= 255:  # conditional jumps reach that far
        return [(_JGE, len(left), 0, first), *left, *right]
    return [(_JGE, 0, 1, first), (_JA, 0, 0, len(left)), *left, *right]


def _ranges(table: Mapping[int, Decision]) -> list[tuple[int, Decision]]:
    """Neighbours with the same answer as one range; gaps are EPERM."""
    result: list[tuple[int, Decision]] = [(0, errno(_EPERM))]
    for number in sorted(table):
        for at, decision in ((number, table[number]), (number + 1, errno(_EPERM))):
            if result[-1][0] == at:
                result.pop()
            if not result or result[-1][1] != decision:
                result.append((at, decision))
    return result


def assemble(tables: Mapping[str, Mapping[int, Decision]]) -> list[Instruction]:
    """The program for several architectures' tables."""
    program: list[Instruction] = [(_LD_W_ABS, 0, 0, _ARCH)]
    for name, table in tables.items():
        body: list[Instruction] = [(_LD_W_ABS, 0, 0, _NR)]
        if name == "x86_64":
            body += [(_JGE, 0, 1, _X32_BIT), (_RET, 0, 0, errno(_EPERM))]
        body += _tree(_ranges(table))
        program += [(_JEQ, 1, 0, _AUDIT_ARCH[name]), (_JA, 0, 0, len(body)), *body]
    program.append((_RET, 0, 0, errno(_EPERM)))
    if len(program) > 4096:  # BPF_MAXINSNS
        raise ValueError("the filter is longer than the kernel takes")
    return program


def to_bytes(program: Sequence[Instruction]) -> bytes:
    return b"".join([struct.pack("=HBBI", *instruction) for instruction in program])


@functools.cache
def default_program(capabilities: frozenset[str], machine: str = "") -> bytes:
    """The default filter for a container with these capabilities, as the bytes that seccomp(2) takes."""
    machine = machine or os.uname().machine
    if machine not in _FAMILY:
        raise Unsupported(f"no system call filter for {machine}", hint="containers run on x86_64 and aarch64")
    tables = _data("syscalls.json")
    return to_bytes(assemble({name: decisions(tables[name], machine, capabilities) for name in _FAMILY[machine]}))
