"""The filter, run by a BPF interpreter that knows nothing of the compiler."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.errors import Unsupported
from engine.linux import capability, libc
from engine.linux import seccomp as filters
from engine.runtime import seccomp
from tests.engine.runtime.bpf import run

ALLOW, EPERM, ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
X86_64, I386, AARCH64, ARM = 0xC000003E, 0x40000003, 0xC00000B7, 0x40000028
TABLES = json.loads((Path(seccomp.__file__).parent / "syscalls.json").read_text())


def default(machine: str = "x86_64", *add: str) -> bytes:
    return seccomp.default_program(frozenset({*capability.DEFAULT, *add}), machine)


def number(name: str, table: str = "x86_64") -> int:
    return int(TABLES[table][name])


def test_ordinary_calls_are_allowed_on_every_architecture() -> None:
    for machine, arch, table in (
        ("x86_64", X86_64, "x86_64"),
        ("x86_64", I386, "i386"),
        ("aarch64", AARCH64, "aarch64"),
    ):
        program = default(machine)
        for name in ("read", "write", "openat", "execve", "futex", "statx", "ptrace", "chroot", "fchmodat2", "mseal"):
            assert run(program, arch, number(name, table)) == ALLOW, (machine, name)


@pytest.mark.parametrize(
    "name",
    ["mount", "unshare", "setns", "bpf", "keyctl", "add_key", "io_uring_setup", "userfaultfd", "pivot_root",
     "kexec_load", "init_module", "reboot", "open_by_handle_at", "perf_event_open", "swapon", "settimeofday",
     "open_tree", "fsopen"],
)  # fmt: skip
def test_what_reaches_the_host_is_refused(name: str) -> None:
    assert run(default(), X86_64, number(name)) == EPERM


def test_capabilities_open_their_calls() -> None:
    assert run(default("x86_64", "SYS_ADMIN"), X86_64, number("mount")) == ALLOW
    assert run(default("x86_64", "SYS_ADMIN"), X86_64, number("clone3")) == ALLOW
    assert run(default("x86_64", "SYS_TIME"), X86_64, number("settimeofday")) == ALLOW
    assert run(default("x86_64", "SYS_ADMIN"), X86_64, number("reboot")) == EPERM
    without = seccomp.default_program(frozenset(), "x86_64")
    assert run(without, X86_64, number("chroot")) == EPERM


def test_clone_may_not_make_namespaces() -> None:
    program = default()
    assert run(program, X86_64, number("clone"), 0x01200011) == ALLOW  # what fork does
    for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000):
        assert run(program, X86_64, number("clone"), flag | 17) == EPERM, hex(flag)
    assert run(program, X86_64, number("clone3")) == ENOSYS  # so that libc falls back to clone


def test_the_engine_asks_a_program_what_it_allows() -> None:
    native = {"x86_64": "x86_64", "aarch64": "aarch64"}[libc.MACHINE]
    program = default(native)
    arch = {"x86_64": X86_64, "aarch64": AARCH64}[native]
    for name, *words in (
        ("read",),
        ("mount",),
        ("clone", 0x8011),
        ("clone", 0x10000011),
        ("socket", 38),
        ("personality", 8),
    ):
        answer = run(program, arch, number(name, native), *words) == ALLOW
        assert filters.allows(program, number(name, native), *words) is answer, name
    assert filters.allows(b"", 1)
    assert not filters.allows(bytes.fromhex("0700000000000000"), 1)  # TAX, which none of ours has


@pytest.mark.parametrize(
    ("family", "answer"),
    [(1, ALLOW), (2, ALLOW), (16, ALLOW), (37, ALLOW), (38, EPERM), (39, ALLOW), (40, EPERM), (41, ALLOW)],
)
def test_socket_families(family: int, answer: int) -> None:
    assert run(default(), X86_64, number("socket"), family) == answer
    # The kernel takes an int: bits above it do not make another family.
    assert run(default(), X86_64, number("socket"), family | 1 << 32) == answer


@pytest.mark.parametrize(
    ("value", "answer"), [(0, ALLOW), (8, ALLOW), (0x20000, ALLOW), (0xFFFFFFFF, ALLOW), (0x40000, EPERM), (1, EPERM)]
)
def test_personality(value: int, answer: int) -> None:
    assert run(default(), X86_64, number("personality"), value) == answer


def test_other_personalities_of_the_machine_are_refused() -> None:
    assert run(default(), X86_64, 0x40000000 | 1) == EPERM  # x32
    assert run(default(), AARCH64, 64) == EPERM
    assert run(default("aarch64"), ARM, 4) == EPERM
    assert run(default(), X86_64, 5000) == EPERM


def test_every_number_has_one_answer_and_the_program_fits() -> None:
    for machine, arches in (("x86_64", (X86_64, I386)), ("aarch64", (AARCH64,))):
        program = default(machine)
        assert len(program) % 8 == 0
        assert len(program) // 8 <= 4096
        for arch in arches:
            answers = {run(program, arch, n) for n in range(700)}
            assert answers <= {ALLOW, EPERM, ENOSYS}
    with pytest.raises(Unsupported, match="vax"):
        seccomp.default_program(frozenset(), "vax")


def test_policy_names_exist() -> None:
    """A misspelt name in the policy would be allowed."""
    policy = json.loads((Path(seccomp.__file__).parent / "seccomp_default.json").read_text())
    known = {name for table in TABLES.values() for name in table}
    named = {name for part in ("withheld", "capabilities") for names in policy[part].values() for name in names}
    assert named | set(policy["arguments"]) | set(policy["errno"]) | set(policy["only"]) <= known
    assert set(policy["capabilities"]) <= set(capability.NAMES)
