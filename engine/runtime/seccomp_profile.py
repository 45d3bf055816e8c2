"""System call profiles in Docker's JSON format, compiled to BPF without a library.

The format is moby's (github.com/moby/profiles, seccomp/seccomp.go), the decisions are libseccomp's as runc drives it:

- a rule whose action is the default action says nothing, and is left out;
- an unconditional rule for a call beats every conditional one for it;
- conditions of one rule must all hold; but where two are about the same argument, each counts as a rule of its own;
- names that no table knows are left out: they are calls of another kernel or architecture;
- arguments are 64 bits wide where the architecture is, else 32.

Where two conditional rules of different actions hold, the first one in the file decides (libseccomp leaves it open). x32
is always refused. i386's multiplexers socketcall(2) and ipc(2) are held to what the profile says of the calls behind
them; a condition on their arguments, which no filter can see, then counts on the refusing side.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidInput, Unsupported
from engine.runtime import seccomp
from engine.runtime.seccomp import RET_ALLOW, Instruction

_RET = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": RET_ALLOW,
}
_WITH_DATA = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_OPERATORS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")
# Which of our tables an architecture means, and Go's name of each machine in `includes` and `excludes`.
_TABLES = {"SCMP_ARCH_X86_64": "x86_64", "SCMP_ARCH_X86": "i386", "SCMP_ARCH_AARCH64": "aarch64"}
_OTHERS = frozenset(
    f"SCMP_ARCH_{name}"
    for name in "X32 ARM MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 PPC64LE S390 S390X PARISC PARISC64"
    " RISCV64 LOONGARCH64 M68K SH SHEB".split()
)
_MACHINES = {"x86_64": ("amd64", "SCMP_ARCH_X86_64"), "aarch64": ("arm64", "SCMP_ARCH_AARCH64")}
_EPERM = 1

# socketcall(2) (linux/net.h) and ipc(2) (linux/ipc.h): the first argument of each call behind them.
_SOCKETCALL = dict(
    zip(
        "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown"
        " setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg".split(),
        range(1, 21),
        strict=True,
    )
)
_IPC = {
    "semop": 1, "semget": 2, "semctl": 3, "semtimedop": 4, "msgsnd": 11, "msgrcv": 12, "msgget": 13, "msgctl": 14,
    "shmat": 21, "shmdt": 22, "shmget": 23, "shmctl": 24,
}  # fmt: skip

_ALU_AND = 0x54
_JUMP_PASS, _JUMP_FAIL = -1, -2


@dataclass(frozen=True, slots=True)
class Condition:
    """`argument OPERATOR value`; MASKED_EQ: `argument & value == value_two`."""

    index: int
    operator: str
    value: int
    value_two: int = 0


@dataclass(frozen=True, slots=True)
class Rule:
    """What the kernel answers to `names` when all of `conditions` hold."""

    names: tuple[str, ...]
    answer: int
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile as it holds for one container on one host."""

    default: int
    tables: tuple[str, ...]
    rules: tuple[Rule, ...]


# --- reading ------------------------------------------------------------------------------------------


def _wrong(what: str) -> InvalidInput:
    return InvalidInput(f"seccomp profile: {what}", hint="see docs.docker.com/engine/security/seccomp for the format")


def _action(name: Any, data: Any) -> int:
    """The kernel's return value. Raises InvalidInput, Unsupported."""
    if name == "SCMP_ACT_NOTIFY":
        raise Unsupported(
            "seccomp profile: SCMP_ACT_NOTIFY needs a program that answers for the kernel, which this engine does not start"
        )
    if not isinstance(name, str) or name not in _RET:
        raise _wrong(f"unknown action {name!r}")
    if data is None:
        return _RET[name] | (_EPERM if name in _WITH_DATA else 0)
    if not isinstance(data, int) or isinstance(data, bool) or not 0 <= data <= 0xFFFF:
        raise _wrong(f"errnoRet {data!r} is not a number between 0 and 65535")
    if name not in _WITH_DATA:
        raise _wrong(f"{name} takes no errnoRet")
    return _RET[name] | data


def _texts(document: Mapping[str, Any], key: str) -> list[str]:
    value = document.get(key) or []
    if not isinstance(value, list) or not all(isinstance(entry, str) for entry in value):
        raise _wrong(f"{key!r} is not a list of names")
    return value


def _kernel(text: str) -> tuple[int, int]:
    match = re.match(r"([0-9]+)\.([0-9]+)", text)
    if match is None:
        raise _wrong(f"{text!r} is not a kernel version")
    return int(match[1]), int(match[2])


def _applies(entry: Mapping[str, Any], capabilities: Collection[str], machine: str, kernel: tuple[int, int]) -> bool:
    """`includes` and `excludes`. Capabilities carry no CAP_ here."""
    go = _MACHINES[machine][0]
    for key in ("includes", "excludes"):
        rule = entry.get(key) or {}
        if not isinstance(rule, dict):
            raise _wrong(f"{key!r} is not an object")
        caps = [name.removeprefix("CAP_") for name in _texts(rule, "caps")]
        arches = _texts(rule, "arches")
        newest = rule.get("minKernel")
        if key == "includes":
            if arches and go not in arches:
                return False
            if any(cap not in capabilities for cap in caps):
                return False
            if newest and kernel < _kernel(str(newest)):
                return False
        elif go in arches or any(cap in capabilities for cap in caps) or (newest and kernel >= _kernel(str(newest))):
            return False
    return True


def _conditions(entry: Mapping[str, Any]) -> list[Condition]:
    given = entry.get("args") or []
    if not isinstance(given, list):
        raise _wrong("'args' is not a list")
    found = []
    for one in given:
        if not isinstance(one, dict):
            raise _wrong("an entry of 'args' is not an object")
        numbers = [one.get("index"), one.get("value", 0), one.get("valueTwo", 0)]
        if not all(isinstance(n, int) and not isinstance(n, bool) and 0 <= n < 1 << 64 for n in numbers):
            raise _wrong("index, value and valueTwo of an argument are numbers of 64 bits")
        operator = str(one.get("op", "")).removeprefix("SCMP_CMP_")
        if operator not in _OPERATORS or not str(one.get("op")).startswith("SCMP_CMP_"):
            raise _wrong(f"unknown comparison {one.get('op')!r}")
        if numbers[0] > 5:
            raise _wrong(f"a system call has no argument number {numbers[0]}")
        found.append(Condition(numbers[0], operator, numbers[1], numbers[2]))
    return found


def _architectures(document: Mapping[str, Any], native: str) -> tuple[str, ...]:
    listed, mapped = _texts(document, "architectures"), document.get("archMap") or []
    if listed and mapped:
        raise _wrong("both 'architectures' and 'archMap' are specified, use either")
    if not isinstance(mapped, list) or not all(isinstance(entry, dict) for entry in mapped):
        raise _wrong("'archMap' is not a list of objects")
    names = [native, *listed]
    for entry in mapped:
        below = _texts(entry, "subArchitectures")
        for name in (entry.get("architecture"), *below):
            if name not in _TABLES and name not in _OTHERS:
                raise _wrong(f"unknown architecture {name!r}")
        if entry.get("architecture") == native:
            names += below
    for name in names:
        if name not in _TABLES and name not in _OTHERS:
            raise _wrong(f"unknown architecture {name!r}")
    family = seccomp.FAMILY[_TABLES[native]]
    return tuple(dict.fromkeys(_TABLES[name] for name in names if _TABLES.get(name) in family))


def read_profile(
    document: Mapping[str, Any], capabilities: Iterable[str], machine: str = "", release: str = ""
) -> Profile:
    """The document as it holds for a container with these capabilities (without CAP_). Raises InvalidInput, Unsupported."""
    machine = machine or os.uname().machine
    if machine not in _MACHINES:
        raise Unsupported(f"no system call filter for {machine}", hint="containers run on x86_64 and aarch64")
    kernel = _kernel(release or os.uname().release)
    have = {name.removeprefix("CAP_") for name in capabilities}
    if document.get("listenerPath"):
        raise Unsupported("seccomp profile: listenerPath needs SCMP_ACT_NOTIFY, which this engine does not do")
    if "defaultAction" not in document:
        raise _wrong("'defaultAction' is missing")
    errno_only = document.get("defaultErrnoRet") if document["defaultAction"] in _WITH_DATA else None
    default = _action(document["defaultAction"], errno_only)
    entries = document.get("syscalls") or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise _wrong("'syscalls' is not a list of objects")
    rules: list[Rule] = []
    for entry in entries:
        names, name = _texts(entry, "names"), entry.get("name")
        if name and names:
            raise _wrong("both 'name' and 'names' are specified in one rule, use either")
        answer, conditions = _action(entry.get("action"), entry.get("errnoRet")), _conditions(entry)
        chosen = tuple(names or ([str(name)] if name else []))
        if not _applies(entry, have, machine, kernel) or answer == default:
            continue
        indexes = [condition.index for condition in conditions]
        if len(set(indexes)) == len(indexes):
            rules.append(Rule(chosen, answer, tuple(conditions)))
        else:
            rules += [Rule(chosen, answer, (condition,)) for condition in conditions]
    return Profile(default, _architectures(document, _MACHINES[machine][1]), tuple(rules))


# --- deciding -----------------------------------------------------------------------------------------

Decision = int | tuple[tuple[tuple[Condition, ...], int], ...]


def decisions(profile: Profile, table: str) -> dict[int, Decision]:
    """What the profile says to each number of one table that it speaks of."""
    numbers = seccomp.numbers(table)
    whole: dict[str, int] = {}
    parts: dict[str, list[tuple[tuple[Condition, ...], int]]] = {}
    for rule in _demultiplexed(profile, table):
        for name in rule.names:
            if name not in numbers:
                continue
            if not rule.conditions:
                whole.setdefault(name, rule.answer)
            else:
                parts.setdefault(name, []).append((rule.conditions, rule.answer))
    result: dict[int, Decision] = {numbers[name]: tuple(found) for name, found in parts.items()}
    result.update({numbers[name]: answer for name, answer in whole.items()})
    return result


def _demultiplexed(profile: Profile, table: str) -> list[Rule]:
    """i386: a rule for a call that socketcall(2) or ipc(2) can make, for these too."""
    if table != "i386":
        return list(profile.rules)
    rules: list[Rule] = []
    for rule in profile.rules:
        rules.append(rule)
        if rule.conditions and rule.answer == RET_ALLOW:
            continue
        for name in rule.names:
            for door, calls, mask in (("socketcall", _SOCKETCALL, 0xFFFFFFFF), ("ipc", _IPC, 0xFFFF)):
                if name in calls:
                    rules.append(Rule((door,), rule.answer, (Condition(0, "MASKED_EQ", mask, calls[name]),)))
    return rules


# --- compiling ----------------------------------------------------------------------------------------


def _words(index: int) -> tuple[Instruction, Instruction]:
    """Loads of the high and the low half: both architectures are little-endian."""
    offset = seccomp.ARGS + 8 * index
    return (seccomp.LD_W_ABS, 0, 0, offset + 4), (seccomp.LD_W_ABS, 0, 0, offset)


def _test(condition: Condition, *, wide: bool) -> list[Instruction]:
    """Instructions with the marks PASS and FAIL as jumps; falls through never, but for the last one's 0."""
    jeq, jgt, jge = seccomp.JEQ, seccomp.JGT, seccomp.JGE
    load_high, load_low = _words(condition.index)
    high, low = condition.value >> 32, condition.value & 0xFFFFFFFF
    good, bad = _JUMP_PASS, _JUMP_FAIL
    operator = condition.operator
    if operator == "MASKED_EQ":
        want_high, want_low = condition.value_two >> 32, condition.value_two & 0xFFFFFFFF
        first = [load_high, (_ALU_AND, 0, 0, high), (jeq, 0, bad, want_high)] if wide else []
        return [*first, load_low, (_ALU_AND, 0, 0, low), (jeq, good, bad, want_low)]
    last = {
        "EQ": (jeq, good, bad, low),
        "NE": (jeq, bad, good, low),
        "GT": (jgt, good, bad, low),
        "GE": (jge, good, bad, low),
        "LT": (jge, bad, good, low),
        "LE": (jgt, bad, good, low),
    }[operator]
    if not wide:
        return [load_low, last]
    if operator in ("EQ", "NE"):
        return [load_high, (jeq, 0, bad if operator == "EQ" else good, high), load_low, last]
    more, less = (good, bad) if operator in ("GT", "GE") else (bad, good)
    return [load_high, (jgt, more, 0, high), (jeq, 0, less, high), load_low, last]


def _rule(conditions: tuple[Condition, ...], answer: int, *, wide: bool) -> list[Instruction]:
    """Returns `answer` when all hold, else falls through behind itself."""
    blocks = [_test(condition, wide=wide) for condition in conditions]
    total = sum(map(len, blocks)) + 1
    code: list[Instruction] = []
    for block in blocks:
        end = len(code) + len(block)
        for operation, true, false, k in block:
            here = len(code) + 1
            jumps = [
                end - here if jump == _JUMP_PASS else total - here if jump == _JUMP_FAIL else jump
                for jump in (true, false)
            ]
            code.append((operation, jumps[0], jumps[1], k))
    return [*code, (seccomp.RET, 0, 0, answer)]


def _leaf(decision: Decision, default: int, *, wide: bool) -> list[Instruction]:
    if isinstance(decision, int):
        return [(seccomp.RET, 0, 0, decision)]
    code: list[Instruction] = []
    for conditions, answer in decision:
        code += _rule(conditions, answer, wide=wide)
    return [*code, (seccomp.RET, 0, 0, default)]


def compile_profile(profile: Profile) -> bytes:
    """The program, as the bytes that seccomp(2) takes. Raises InvalidInput when it is longer than the kernel takes."""
    tables = {
        table: seccomp.tree(
            seccomp.ranges(decisions(profile, table), profile.default),
            functools.partial(_leaf, default=profile.default, wide=table != "i386"),
        )
        for table in profile.tables
    }
    try:
        return seccomp.to_bytes(seccomp.assemble(tables))
    except ValueError as error:
        raise _wrong(str(error)) from None


def program(document: Mapping[str, Any], capabilities: Sequence[str]) -> bytes:
    """A user's profile for a container with these capabilities, compiled for this host."""
    return compile_profile(read_profile(document, capabilities))
