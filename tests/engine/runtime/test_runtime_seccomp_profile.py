"""Profiles in Docker's JSON format: read, compiled, run by an interpreter, beside libseccomp, and in a real container."""

from __future__ import annotations

import ctypes
import ctypes.util
import errno
import json
import os
import random
import tempfile
from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import InvalidInput, Unsupported
from engine.linux import capability
from engine.runtime import seccomp
from engine.runtime.seccomp_profile import compile_profile, read_profile
from engine.runtime.spec_security import parse_security_options
from tests.engine.runtime.bpf import run

MakeBox = Callable[..., Any]
ALLOW, EPERM, KILL, KILL_PROCESS, LOG, TRAP = 0x7FFF0000, 0x00050001, 0, 0x80000000, 0x7FFC0000, 0x00030000
X86_64, I386, AARCH64 = 0xC000003E, 0x40000003, 0xC00000B7
ARCH_MAP = [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}]
BIG = 0x1_0000_0005


def compiled(document: dict[str, Any], *caps: str, machine: str = "x86_64", release: str = "6.1.0-18-amd64") -> bytes:
    return compile_profile(read_profile(document, caps, machine, release))


def number(name: str, table: str = "x86_64") -> int:
    return seccomp.numbers(table)[name]


def rule(action: str = "SCMP_ACT_ALLOW", *names: str, **more: Any) -> dict[str, Any]:
    return {"names": list(names or ("socket",)), "action": action, **more}


def condition(op: str, value: int, two: int = 0, index: int = 0) -> dict[str, Any]:
    return {"index": index, "value": value, "valueTwo": two, "op": f"SCMP_CMP_{op}"}


def test_actions_and_their_numbers() -> None:
    answers = {
        ("SCMP_ACT_KILL", None): KILL, ("SCMP_ACT_KILL_THREAD", None): KILL, ("SCMP_ACT_KILL_PROCESS", None): KILL_PROCESS,
        ("SCMP_ACT_TRAP", None): TRAP, ("SCMP_ACT_ERRNO", None): EPERM, ("SCMP_ACT_ERRNO", 38): 0x00050026,
        ("SCMP_ACT_ERRNO", 0): 0x00050000, ("SCMP_ACT_TRACE", 7): 0x7FF00007, ("SCMP_ACT_LOG", None): LOG,
    }  # fmt: skip
    for (action, data), answer in answers.items():
        more = {} if data is None else {"errnoRet": data}
        program = compiled({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule(action, "read", "write", **more)]})
        assert run(program, X86_64, number("write")) == answer, action
        assert run(program, X86_64, number("close")) == ALLOW
    program = compiled(
        {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [rule("SCMP_ACT_ALLOW", "read")]}
    )
    assert run(program, X86_64, number("write")) == 0x00050026
    assert run(program, X86_64, 9999) == 0x00050026


@pytest.mark.parametrize("op", ["NE", "LT", "LE", "EQ", "GE", "GT"])
def test_every_comparison_in_64_bits(op: str) -> None:
    holds: dict[str, Callable[[int, int], bool]] = {
        "NE": lambda a, b: a != b, "LT": lambda a, b: a < b, "LE": lambda a, b: a <= b,
        "EQ": lambda a, b: a == b, "GE": lambda a, b: a >= b, "GT": lambda a, b: a > b,
    }  # fmt: skip
    values = [0, 1, 4, 5, 6, 0xFFFFFFFF, 1 << 32, BIG - 1, BIG, BIG + 1, 0x2_0000_0000, (1 << 64) - 1]
    for wanted in values:
        document = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(args=[condition(op, wanted, index=2)])]}
        program = compiled(document)
        for given in values:
            expected = ALLOW if holds[op](given, wanted) else EPERM
            assert run(program, X86_64, number("socket"), 7, 7, given) == expected, (given, wanted)


def test_masked_comparison() -> None:
    mask = 0xFF_0000_00F0
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule(args=[condition("MASKED_EQ", mask, 0x01_0000_0010)])],
    }
    program = compiled(document)
    for given in (0x01_0000_0010, 0x01_0000_001F, 0x01_1234_5610):
        assert run(program, X86_64, number("socket"), given) == ALLOW
    for given in (0x10, 0x01_0000_0020, 0x02_0000_0010):
        assert run(program, X86_64, number("socket"), given) == EPERM


def test_conditions_of_one_rule_all_hold_but_of_one_argument_any() -> None:
    both = rule(args=[condition("EQ", 1), condition("GT", 5, index=1)])
    program = compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [both]})
    assert [run(program, X86_64, number("socket"), *pair) for pair in ((1, 6), (1, 5), (2, 6))] == [ALLOW, EPERM, EPERM]
    either = rule(args=[condition("EQ", 1), condition("EQ", 3)])
    program = compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [either]})
    assert [run(program, X86_64, number("socket"), n) for n in (1, 2, 3)] == [ALLOW, EPERM, ALLOW]


def test_a_whole_rule_beats_a_part_and_the_default_action_says_nothing() -> None:
    part, whole = rule("SCMP_ACT_KILL", args=[condition("EQ", 1)]), rule("SCMP_ACT_ALLOW")
    program = compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [part, whole]})
    assert run(program, X86_64, number("socket"), 1) == ALLOW
    same = rule("SCMP_ACT_ERRNO", args=[condition("EQ", 1)])
    program = compiled({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [same, whole]})
    assert run(program, X86_64, number("socket"), 1) == ALLOW


def test_includes_and_excludes() -> None:
    def answer(entry: dict[str, Any], *caps: str, machine: str = "x86_64", release: str = "6.1.0") -> int:
        program = compiled(
            {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule(**entry)]}, *caps, machine=machine, release=release
        )
        return run(program, X86_64 if machine == "x86_64" else AARCH64, number("socket", machine))

    assert answer({"includes": {"caps": ["CAP_SYS_ADMIN"]}}) == EPERM
    assert answer({"includes": {"caps": ["CAP_SYS_ADMIN"]}}, "SYS_ADMIN") == ALLOW
    assert answer({"includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}}, "SYS_ADMIN") == EPERM
    assert answer({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}, "SYS_ADMIN") == EPERM
    assert answer({"excludes": {"caps": ["CAP_SYS_ADMIN"]}}) == ALLOW
    assert answer({"includes": {"arches": ["amd64", "x32"]}}) == ALLOW
    assert answer({"includes": {"arches": ["amd64", "x32"]}}, machine="aarch64") == EPERM
    assert answer({"excludes": {"arches": ["arm64"]}}, machine="aarch64") == EPERM
    assert answer({"includes": {"minKernel": "4.8"}}, release="4.7.9") == EPERM
    assert answer({"includes": {"minKernel": "4.8"}}, release="5.0") == ALLOW
    assert answer({"excludes": {"minKernel": "4.8"}}, release="4.8.0") == EPERM


def test_architectures() -> None:
    document = {"defaultAction": "SCMP_ACT_ALLOW", "archMap": ARCH_MAP, "syscalls": [rule("SCMP_ACT_KILL", "mkdir")]}
    program = compiled(document)
    assert run(program, X86_64, number("mkdir")) == KILL
    assert run(program, I386, number("mkdir", "i386")) == KILL
    assert run(program, I386, number("read", "i386")) == ALLOW
    assert run(program, X86_64, 0x40000000 | number("read")) == EPERM
    alone = compiled({"defaultAction": "SCMP_ACT_ALLOW"})
    assert run(alone, X86_64, number("read")) == ALLOW
    assert run(alone, I386, number("read", "i386")) == EPERM, "no way round through the other table"
    listed = compiled({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]})
    assert run(listed, I386, number("read", "i386")) == ALLOW
    arm = compiled({"defaultAction": "SCMP_ACT_ALLOW", "archMap": ARCH_MAP}, machine="aarch64")
    assert run(arm, AARCH64, 64) == ALLOW
    assert run(arm, X86_64, 0) == EPERM


def test_multiplexers_of_i386_hold_to_the_calls_behind_them() -> None:
    base = {"defaultAction": "SCMP_ACT_ALLOW", "archMap": ARCH_MAP}
    program = compiled({**base, "syscalls": [rule("SCMP_ACT_ERRNO", "socket", "shmat")]})
    door, ipc = number("socketcall", "i386"), number("ipc", "i386")
    assert [run(program, I386, door, n) for n in (1, 2)] == [EPERM, ALLOW]
    assert [run(program, I386, ipc, n) for n in (21, 21 | 1 << 16, 23)] == [EPERM, EPERM, ALLOW]
    program = compiled({**base, "syscalls": [rule("SCMP_ACT_ERRNO", args=[condition("EQ", 38)])]})
    assert run(program, I386, door, 1) == EPERM, "its family cannot be seen"


@pytest.mark.parametrize(
    ("document", "match"),
    [
        ({}, "'defaultAction' is missing"),
        ({"defaultAction": "ALLOW"}, "unknown action"),
        ({"syscalls": {}}, None),
        ({"syscalls": [1]}, "not a list of objects"),
        ({"syscalls": [{"action": "SCMP_ACT_ERRNO", "names": "read"}]}, "list of names"),
        ({"syscalls": [{"action": "SCMP_ACT_ERRNO", "names": ["a"], "name": "b"}]}, "both 'name' and 'names'"),
        ({"syscalls": [{"action": "SCMP_ACT_KILL", "names": ["a"], "errnoRet": 1}]}, "takes no errnoRet"),
        ({"syscalls": [{"action": "SCMP_ACT_ERRNO", "names": ["a"], "errnoRet": -1}]}, "errnoRet"),
        ({"syscalls": [rule(args=[condition("XX", 1)])]}, "unknown comparison"),
        ({"syscalls": [rule(args=[condition("EQ", 1, index=6)])]}, "no argument number 6"),
        ({"syscalls": [rule(args=[condition("EQ", 1 << 64)])]}, "64 bits"),
        ({"syscalls": [rule(includes=[])]}, None),
        ({"syscalls": [rule(includes={"minKernel": "new"})]}, "kernel version"),
        ({"architectures": ["SCMP_ARCH_X86"], "archMap": ARCH_MAP}, "use either"),
        ({"architectures": ["SCMP_ARCH_VAX"]}, "unknown architecture"),
    ],
)
def test_profiles_that_are_wrong(document: dict[str, Any], match: str | None) -> None:
    whole = {"defaultAction": "SCMP_ACT_ALLOW", **document} if document else {}
    if match is None:
        compiled(whole)
        return
    with pytest.raises(InvalidInput, match=match):
        compiled(whole)


def test_what_cannot_be_done_is_said() -> None:
    for document in (
        {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("SCMP_ACT_NOTIFY")]},
        {"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/x"},
    ):
        with pytest.raises(Unsupported, match="SCMP_ACT_NOTIFY"):
            compiled(document)
    for text in ("{", "[]", "7"):
        with pytest.raises(InvalidInput, match="Decoding seccomp profile failed"):
            parse_security_options([f"seccomp={text}"])


# --- beside libseccomp --------------------------------------------------------------------------------

_OPS = {"NE": 1, "LT": 2, "LE": 3, "EQ": 4, "GE": 5, "GT": 6, "MASKED_EQ": 7}


class _Compare(ctypes.Structure):
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


def libseccomp() -> Any:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        if os.environ.get("CI") == "true":
            pytest.fail("libseccomp is missing in CI: .ci/run installs it")
        pytest.skip("no libseccomp here")
    library = ctypes.CDLL(name)
    library.seccomp_init.restype = ctypes.c_void_p
    return library


def theirs(library: Any, default: int, rules: list[tuple[int, int, list[tuple[str, int, int, int]]]]) -> bytes:
    context = ctypes.c_void_p(library.seccomp_init(ctypes.c_uint32(default)))
    library.seccomp_attr_set(context, 2, ctypes.c_uint32(EPERM))  # SCMP_FLTATR_ACT_BADARCH
    for call, answer, conditions in rules:
        array = (_Compare * max(1, len(conditions)))(
            *[_Compare(index, _OPS[op], a, b) for op, a, b, index in conditions]
        )
        done = library.seccomp_rule_add_array(context, ctypes.c_uint32(answer), call, len(conditions), array)
        assert done == 0, errno.errorcode.get(-done)
    with tempfile.TemporaryFile() as file:
        assert library.seccomp_export_bpf(context, file.fileno()) == 0
        library.seccomp_release(context)
        file.seek(0)
        return file.read()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the tables of this test are x86_64's")
def test_decisions_are_libseccomps() -> None:
    """Random profiles of one action besides the default: there libseccomp's answer does not depend on its inner order."""
    library, chance = libseccomp(), random.Random(5)
    names = ["socket", "clone", "read", "personality", "prctl"]
    values = [0, 1, 5, 38, 0xFFFFFFFF, 1 << 32, BIG, 1 << 63]
    for _ in range(60):
        default, other = chance.choice([(EPERM, ALLOW), (ALLOW, 0x00050026)])
        document: dict[str, Any] = {
            "defaultAction": "SCMP_ACT_ERRNO" if default == EPERM else "SCMP_ACT_ALLOW",
            "syscalls": [],
        }
        plain = []
        for _rule in range(chance.randint(1, 6)):
            name = chance.choice(names)
            conditions = []
            for index in chance.sample(range(4), chance.randint(0, 2)):
                op = chance.choice(list(_OPS))
                value, two = chance.choice(values), chance.choice(values)
                conditions.append((op, value, two & value if op == "MASKED_EQ" else 0, index))
            action = {"action": "SCMP_ACT_ALLOW"} if other == ALLOW else {"action": "SCMP_ACT_ERRNO", "errnoRet": 38}
            args = [condition(op, a, b, index) for op, a, b, index in conditions]
            document["syscalls"].append({"names": [name], **action, "args": args})
            plain.append((number(name), other, conditions))
        ours, reference = compiled(document), theirs(library, default, plain)
        for _probe in range(80):
            call = chance.choice([*map(number, names), 999])
            arguments = [chance.choice([*values, chance.getrandbits(64)]) for _ in range(4)]
            assert run(ours, X86_64, call, *arguments) == run(reference, X86_64, call, *arguments), (
                document,
                call,
                arguments,
            )


def test_the_default_profile_can_be_written_as_one(tmp_path: Any) -> None:
    """A profile that lists what the built-in one allows decides as it does, number by number."""
    caps = frozenset(capability.DEFAULT)
    allowed = []
    for name, value in seccomp.decisions(seccomp.numbers("x86_64"), "x86_64", caps).items():
        if value == ALLOW:
            allowed.append(name)
    by_number = {n: name for name, n in seccomp.numbers("x86_64").items()}
    document = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [rule("SCMP_ACT_ALLOW", *(by_number[n] for n in allowed))],
    }
    program, builtin = compiled(document), seccomp.default_program(caps, "x86_64")
    for n in range(500):
        if run(builtin, X86_64, n) == ALLOW and n in allowed:
            assert run(program, X86_64, n) == ALLOW


# --- in force -----------------------------------------------------------------------------------------


@pytest.mark.root
def test_profiles_in_real_containers(box: MakeBox) -> None:
    def options(document: dict[str, Any]) -> tuple[str, ...]:
        return (f"seccomp={json.dumps(document)}",)

    deny = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("SCMP_ACT_ERRNO", "mkdir", "mkdirat", errnoRet=28)]}
    one = box("mkdir", "/x", security_opt=options(deny))
    assert one.run() == 1
    assert "No space left on device" in one.output("stderr")
    kill = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule("SCMP_ACT_KILL_PROCESS", "mkdir", "mkdirat")]}
    two = box("sh", "-c", "mkdir /x; echo rc=$?", security_opt=options(kill))
    assert two.run() == 0
    assert two.output() == "rc=159\n"  # 128 + SIGSYS
    both = box("cat", "/proc/self/status", security_opt=("no-new-privileges", *options(deny)), user="bob")
    assert both.run() == 0
    assert "Seccomp:\t2" in both.output()
    assert "NoNewPrivs:\t1" in both.output()
    none = box("unshare", "-m", "true", security_opt=("seccomp=unconfined",), cap_add=("SYS_ADMIN",))
    assert none.run() == 0
    nothing = box("true", security_opt=options({"defaultAction": "SCMP_ACT_ERRNO"}))
    assert nothing.run() != 0
