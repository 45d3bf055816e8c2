"""Control groups on recorded trees: what is written where. (The real v1 is tested with real containers.)"""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.linux.cgroup import Cgroup, Layout, Limits, discover

V2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n"
)
UNIFIED = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"


def test_layouts() -> None:
    root = Path("/sys/fs/cgroup")
    assert discover(V2) == Layout("v2", {"": root})
    assert discover(V1) == Layout(
        "v1", {"cpu": root / "cpu,cpuacct", "cpuacct": root / "cpu,cpuacct", "memory": root / "memory"}
    )
    assert discover(V1 + UNIFIED).version == "hybrid"
    assert discover("22 1 8:1 / / rw - ext4 /dev/sda rw\n") == Layout("none", {})


def v2_tree(root: Path, controllers: str = "cpuset cpu io memory pids") -> Path:
    """A v2 mount as a kernel shows it: the files of the root, of `workbench` and of the container's group."""
    for folder in (root, root / "workbench", root / "workbench/id"):
        folder.mkdir(exist_ok=True)
        (folder / "cgroup.controllers").write_text(controllers)
        (folder / "cgroup.subtree_control").write_text("")
        (folder / "cgroup.procs").write_text("")
    leaf = root / "workbench/id"
    for name in ("memory.max", "memory.swap.max", "cpu.max", "pids.max"):
        (leaf / name).write_text("max")
    (leaf / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    return leaf


def test_v2_limits(tmp_path: Path) -> None:
    leaf = v2_tree(tmp_path)
    group = Cgroup(Layout("v2", {"": tmp_path}), "workbench/id")
    group.create(Limits(memory=1 << 20, swap=3 << 20, quota=50_000, pids=7))
    assert group.notes == []
    # A file of a recorded tree is overwritten from its start, as the kernel takes each write for itself.
    assert (leaf / "memory.max").read_text() == "1048576"
    assert (leaf / "memory.swap.max").read_text() == "2097152"
    assert (leaf / "cpu.max").read_text() == "50000 100000"
    assert (leaf / "pids.max").read_text().startswith("7")
    for folder in (tmp_path, tmp_path / "workbench"):  # "+cpu", "+memory", "+pids" in turn, each over the last
        assert (folder / "cgroup.subtree_control").read_text() == "+pidsry"
    assert (leaf / "cgroup.subtree_control").read_text() == ""  # processes live in leaves only
    group.join(4321)
    assert (leaf / "cgroup.procs").read_text() == "4321"
    assert not group.oom_killed()
    (leaf / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert group.oom_killed()


def test_v2_without_a_controller_is_noted_not_silent(tmp_path: Path) -> None:
    leaf = v2_tree(tmp_path, "cpu")
    (leaf / "memory.max").unlink()
    group = Cgroup(Layout("v2", {"": tmp_path}), "workbench/id")
    group.create(Limits(memory=1 << 20))
    assert group.notes == ["memory cannot be limited here: no memory.max"]


def test_no_limits_touch_nothing(tmp_path: Path) -> None:
    leaf = v2_tree(tmp_path)
    Cgroup(Layout("v2", {"": tmp_path}), "workbench/id").create(Limits())
    assert {(leaf / name).read_text() for name in ("memory.max", "cpu.max", "pids.max")} == {"max"}


def test_v1_limits_and_devices(tmp_path: Path) -> None:
    files = {
        "memory": ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.oom_control"),
        "devices": ("devices.deny", "devices.allow"),
        "cpu": ("cpu.cfs_period_us", "cpu.cfs_quota_us"),
    }
    for name, members in files.items():
        folder = tmp_path / name / "workbench/id"
        folder.mkdir(parents=True)
        for member in (*members, "cgroup.procs"):
            (folder / member).write_text("")
    group = Cgroup(Layout("v1", {name: tmp_path / name for name in files}), "workbench/id")
    group.create(Limits(memory=4096, quota=25_000, pids=3))
    assert (tmp_path / "memory/workbench/id/memory.limit_in_bytes").read_text() == "4096"
    assert (tmp_path / "memory/workbench/id/memory.memsw.limit_in_bytes").read_text() == "8192"
    assert (tmp_path / "cpu/workbench/id/cpu.cfs_quota_us").read_text() == "25000"
    assert (tmp_path / "devices/workbench/id/devices.deny").read_text() == "a"
    assert (tmp_path / "devices/workbench/id/devices.allow").read_text().endswith("c 136:* rwm")
    assert group.notes == ["pids cannot be limited here: no pids.max"]


def test_a_refused_limit_is_an_error_that_names_it(tmp_path: Path) -> None:
    leaf = v2_tree(tmp_path)
    (leaf / "pids.max").unlink()
    (leaf / "pids.max").mkdir()
    with pytest.raises(OSError, match=r"setting pids \(pids.max = 9\)"):
        Cgroup(Layout("v2", {"": tmp_path}), "workbench/id").create(Limits(pids=9))
