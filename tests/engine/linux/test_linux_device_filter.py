"""The device filter: against its own rules, the kernel's verifier, and a real cgroup2 mount where there is one."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from engine.linux import device_filter as df
from engine.model import HostConfig
from engine.runtime.spec_resources import DeviceNode, device_rules

FUSE = DeviceNode("/dev/fuse", "c", 10, 229, 0o600, access="rw")
DEFAULT = device_rules(HostConfig(device_cgroup_rules=("b 8:* r",)), [FUSE])


def decide(rules: Sequence[dict[str, Any]], kind: str, major: int, minor: int, access: str) -> bool:
    """OCI's meaning, written the other way round than the compiler has it: every bit asked for, in order."""
    for bit in access:
        answer = False
        for rule in rules:
            if rule.get("type", "a") not in ("a", kind) or bit not in rule.get("access", "rwm"):
                continue
            if rule.get("major", major) != major or rule.get("minor", minor) != minor:
                continue
            answer = rule["allow"]
        if not answer:
            return False
    return True


CASES = [
    ("c", 1, 3, "rw"), ("c", 1, 3, "m"), ("c", 1, 1, "r"), ("c", 1, 1, "m"), ("b", 8, 0, "m"), ("b", 8, 0, "r"),
    ("b", 8, 0, "rw"), ("b", 9, 0, "r"), ("c", 136, 77, "rw"), ("c", 10, 229, "rw"), ("c", 10, 229, "w"),
    ("c", 10, 200, "r"), ("c", 5, 1, "rwm"), ("c", 5, 3, "w"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_the_program_decides_as_the_rules_say(case: tuple[str, int, int, str]) -> None:
    assert df.interpret(df.program(DEFAULT), *case) == decide(DEFAULT, *case)


def test_privileged_and_empty_rule_sets() -> None:
    everything = device_rules(HostConfig(privileged=True), [])
    for case in CASES:
        assert df.interpret(df.program(everything), *case)
        assert not df.interpret(df.program([]), *case)


def test_denying_rules_meet_any_part() -> None:
    rules = [{"allow": True, "access": "rwm"}, {"allow": False, "type": "b", "access": "w"}]
    code = df.program(rules)
    for kind, access in itertools.product("bc", ("r", "w", "m", "rw", "rwm")):
        assert df.interpret(code, kind, 8, 1, access) == (kind == "c" or "w" not in access)


def test_lines_of_v1() -> None:
    lines = list(df.lines_v1(DEFAULT))
    assert lines[:3] == [("devices.deny", "a"), ("devices.allow", "c *:* m"), ("devices.allow", "b *:* m")]
    assert lines[-2:] == [("devices.allow", "c 10:229 rw"), ("devices.allow", "b 8:* r")]


def cgroup2() -> Path | None:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return Path(line.split(" ")[4])
    return None


@pytest.mark.root
def test_the_kernel_takes_it_and_it_holds(tmp_path: Path) -> None:
    """Loads the program, and attaches it to a group of a real cgroup2 mount, in which a process then tries."""
    mount = cgroup2()
    try:
        os.close(df.load(df.program(DEFAULT)))
    except PermissionError:
        pytest.skip("this host does not let BPF programs be loaded")
    if mount is None:
        pytest.skip("no cgroup2 mount here")
    group = mount / f"workbench-test-{os.getpid()}"
    group.mkdir()
    try:
        df.attach(group, DEFAULT)
        os.mknod(tmp_path / "mem", 0o600 | 0o020000, os.makedev(1, 1))
        os.mknod(tmp_path / "null", 0o600 | 0o020000, os.makedev(1, 3))
        program = f"""
import os
open({str(group / "cgroup.procs")!r}, "w").write("0")
for name in ("null", "mem"):
    try:
        os.close(os.open({str(tmp_path)!r} + "/" + name, os.O_RDONLY))
        print(name, "open")
    except OSError as error:
        print(name, error.errno)
"""
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert done.stdout.splitlines() == ["null open", "mem 1"]
    finally:
        group.rmdir()
