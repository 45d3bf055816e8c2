"""The system call filter as OCI's `linux.seccomp`, for a runtime that compiles its filter itself.

The decisions are those of `seccomp` and `seccomp_profile`, in libseccomp's words. Arguments are compared as the 32 bits that
the kernel uses: a range of numbers becomes blocks that a mask can tell (as an address range becomes prefixes), because a
64-bit comparison would let the bits above slip past. x32 is left out of the architectures, so that it is refused.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from typing import Any

from engine.errors import Unsupported
from engine.runtime import seccomp
from engine.runtime.seccomp_profile import Condition, Profile, Rule

_EPERM = 1
_WORD = 0xFFFFFFFF
_ARCHITECTURES = {"x86_64": "SCMP_ARCH_X86_64", "i386": "SCMP_ARCH_X86", "aarch64": "SCMP_ARCH_AARCH64"}
_ACTIONS = {
    0x00000000: "SCMP_ACT_KILL_THREAD",
    0x80000000: "SCMP_ACT_KILL_PROCESS",
    0x00030000: "SCMP_ACT_TRAP",
    0x00050000: "SCMP_ACT_ERRNO",
    0x7FF00000: "SCMP_ACT_TRACE",
    0x7FFC0000: "SCMP_ACT_LOG",
    0x7FFF0000: "SCMP_ACT_ALLOW",
}


def document(profile: Profile) -> dict[str, Any]:
    """OCI's `linux.seccomp`."""
    action, data = _action(profile.default)
    return {
        "defaultAction": action,
        **({"defaultErrnoRet": data} if data is not None else {}),
        "architectures": [_ARCHITECTURES[table] for table in profile.tables],
        "syscalls": [_rule(rule) for rule in profile.rules],
    }


def _action(answer: int) -> tuple[str, int | None]:
    """The name of a return value of the kernel's filter, and the number that goes with it."""
    name = _ACTIONS[answer & 0xFFFF0000]
    return name, answer & 0xFFFF if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE") else None


def _rule(rule: Rule) -> dict[str, Any]:
    action, data = _action(rule.answer)
    entry: dict[str, Any] = {"names": list(rule.names), "action": action}
    if data is not None:
        entry["errnoRet"] = data
    if rule.conditions:
        entry["args"] = [
            {
                "index": condition.index,
                "value": condition.value,
                "valueTwo": condition.value_two,
                "op": f"SCMP_CMP_{condition.operator}",
            }
            for condition in rule.conditions
        ]
    return entry


def default_profile(capabilities: Collection[str], machine: str = "") -> Profile:
    """The default filter of a container with these capabilities (without CAP_), as rules. Raises Unsupported."""
    machine = machine or os.uname().machine
    if machine not in seccomp.FAMILY:
        raise Unsupported(f"no system call filter for {machine}", hint="containers run on x86_64 and aarch64")
    decided: dict[str, seccomp.Decision] = {}
    for table in seccomp.FAMILY[machine]:
        calls = seccomp.numbers(table)
        names = {number: name for name, number in calls.items()}
        for number, decision in seccomp.decisions(calls, machine, capabilities).items():
            decided[names[number]] = decision
    allowed = tuple(sorted(name for name, decision in decided.items() if decision == seccomp.RET_ALLOW))
    rules = [Rule(allowed, seccomp.RET_ALLOW)]
    for name, decision in sorted(decided.items(), key=lambda item: item[0]):
        if isinstance(decision, tuple):
            for check in decision:
                rules += [Rule((name,), seccomp.RET_ALLOW, (condition,)) for condition in _conditions(check)]
        elif decision != seccomp.RET_ALLOW:
            rules.append(Rule((name,), decision))
    return Profile(seccomp.errno(_EPERM), seccomp.FAMILY[machine], tuple(rules))


def _conditions(check: seccomp.Check) -> Iterator[Condition]:
    """Each of them is enough."""
    index, operator, value = check
    if operator == "eq":
        yield Condition(index, "MASKED_EQ", _WORD, value)
    elif operator == "none":
        yield Condition(index, "MASKED_EQ", value, 0)
    elif operator == "lt":
        yield from _blocks(index, 0, value - 1)
    elif operator == "gt":
        yield from _blocks(index, value + 1, _WORD)
    else:
        raise ValueError(f"unknown comparison {operator!r}")


def _blocks(index: int, first: int, last: int) -> Iterator[Condition]:
    """The numbers of a range, as the fewest blocks of a power of two that begin at a multiple of their size."""
    while first <= last:
        size = first & -first or 1 << 32
        while first + size - 1 > last:
            size >>= 1
        yield Condition(index, "MASKED_EQ", _WORD & ~(size - 1), first)
        first += size
