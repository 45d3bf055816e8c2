"""Control groups on recorded trees: what is written where. (The real v1 is tested with real containers.)"""

from __future__ import annotations

import errno
import os
import threading
from pathlib import Path

import pytest

from engine.linux import cgroup, freezer
from engine.linux.cgroup import Cgroup, Layout, discover
from engine.linux.cgroup_limits import cpu_weight, io_weight, plan_v1, plan_v2

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
    group.create(
        {
            "memory": {"limit": 1 << 20, "swap": 3 << 20},
            "cpu": {"quota": 50_000, "period": 100_000},
            "pids": {"limit": 7},
        }
    )
    assert group.notes == []
    # A file of a recorded tree is overwritten from its start, as the kernel takes each write for itself.
    assert (leaf / "memory.max").read_text() == "1048576"
    assert (leaf / "memory.swap.max").read_text() == "2097152"
    assert (leaf / "cpu.max").read_text() == "50000 100000"
    assert (leaf / "pids.max").read_text().startswith("7")
    for folder in (tmp_path, tmp_path / "workbench"):  # "+cpu" ... "+cpuset" in turn, each over the last
        assert (folder / "cgroup.subtree_control").read_text() == "+cpuset"
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
    group.create({"memory": {"limit": 1 << 20, "swappiness": 1}})
    assert group.notes == [
        "memory swappiness cannot be set for a container on cgroup v2: it is the host's",
        "memory cannot be limited here: no memory.max",
    ]


def test_v2_controllers_that_a_full_root_group_refuses_are_told_of_with_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a container of somebody else's the root group has processes (cgroup-v2.rst, No Internal Process Constraint): each start of a
    container without limits must not complain of five controllers."""
    leaf = v2_tree(tmp_path)
    (leaf / "memory.max").unlink()

    def write(path: Path, value: str) -> None:
        if path == tmp_path / "cgroup.subtree_control":
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        path.write_text(value)

    monkeypatch.setattr(cgroup, "_write", write)
    group = Cgroup(Layout("v2", {"": tmp_path}), "workbench/id")
    group.create({})
    assert group.notes == []
    group.create({"memory": {"limit": 1 << 20}})
    assert group.notes == [f"memory cannot be limited here: no memory.max: Device or resource busy at {tmp_path}"]


def test_no_limits_touch_nothing(tmp_path: Path) -> None:
    leaf = v2_tree(tmp_path)
    Cgroup(Layout("v2", {"": tmp_path}), "workbench/id").create({})
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
    rules = [{"allow": False, "access": "rwm"}, {"allow": True, "type": "c", "major": 136, "access": "rwm"}]
    memory = {"limit": 4096, "swap": 8192}
    group.create({"memory": memory, "cpu": {"quota": 25_000}, "pids": {"limit": 3}, "devices": rules})
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
        Cgroup(Layout("v2", {"": tmp_path}), "workbench/id").create({"pids": {"limit": 9}})


def test_the_plans_name_every_limit() -> None:
    disk = {"major": 8, "minor": 0}
    wanted = {
        "memory": {"limit": 10, "swap": -1, "reservation": 5, "swappiness": 7, "disableOOMKiller": True},
        "cpu": {"shares": 512, "period": 1000, "quota": 500, "cpus": "0-1", "mems": "0"},
        "pids": {"limit": -1},
        "blockIO": {
            "weight": 500,
            "weightDevice": [{**disk, "weight": 10}],
            "throttleReadBpsDevice": [{**disk, "rate": 1}],
            "throttleWriteIOPSDevice": [{**disk, "rate": 2}],
        },
    }
    assert {(w.file, w.value) for w in plan_v1(wanted)} == {
        ("memory.limit_in_bytes", "10"), ("memory.memsw.limit_in_bytes", "-1"), ("memory.soft_limit_in_bytes", "5"),
        ("memory.swappiness", "7"), ("memory.oom_control", "1"), ("cpu.shares", "512"), ("cpu.cfs_period_us", "1000"),
        ("cpu.cfs_quota_us", "500"), ("cpuset.cpus", "0-1"), ("cpuset.mems", "0"), ("pids.max", "max"),
        ("blkio.weight", "500"), ("blkio.weight_device", "8:0 10"), ("blkio.throttle.read_bps_device", "8:0 1"),
        ("blkio.throttle.write_iops_device", "8:0 2"),
    }  # fmt: skip
    assert {(w.file, w.value) for w in plan_v2(wanted)} == {
        ("memory.max", "10"), ("memory.swap.max", "max"), ("memory.low", "5"), ("cpu.weight", "59"),
        ("cpu.max", "500 1000"), ("cpuset.cpus", "0-1"), ("cpuset.mems", "0"), ("pids.max", "max"),
        ("io.weight", "default 4950"), ("io.weight", "8:0 1"), ("io.max", "8:0 rbps=1"), ("io.max", "8:0 wiops=2"),
    }  # fmt: skip


def test_an_update_of_half_of_a_file_keeps_the_other_half() -> None:
    (cpu,) = plan_v2({"cpu": {"quota": 5}}, current_cpu=("max", 7))
    assert cpu.value == "5 7"
    (cpu,) = plan_v2({"cpu": {"period": 9}}, current_cpu=("5", 7))
    assert cpu.value == "5 9"
    (swap,) = plan_v2({"memory": {"swap": 30}}, current_memory=10)
    assert (swap.file, swap.value) == ("memory.swap.max", "20")


@pytest.mark.parametrize(("shares", "weight"), [(2, 1), (1024, 100), (262144, 10000), (0, 1), (999999, 10000)])
def test_weights_meet_at_both_ends_and_at_the_defaults(shares: int, weight: int) -> None:
    assert cpu_weight(shares) == weight
    assert (io_weight(10), io_weight(1000)) == (1, 10000)


def test_a_tree_below_the_group_is_removed_with_it(tmp_path: Path) -> None:
    (tmp_path / "workbench/id/made/by/the/container").mkdir(parents=True)
    Cgroup(Layout("v2", {"": tmp_path}), "workbench/id").remove()
    assert [path.name for path in tmp_path.rglob("*")] == ["workbench"]


# --- v2: stopping, ending, counting -----------------------------------------------------------------------


def test_v2_pause_waits_for_the_last_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leaf = v2_tree(tmp_path)
    group = Cgroup(Layout("v2", {"": tmp_path}), "workbench/id")
    (leaf / "cgroup.freeze").write_text("0")
    (leaf / "cgroup.events").write_text("populated 1\nfrozen 0\n")

    def kernel() -> None:
        while (leaf / "cgroup.freeze").read_text() != "1":
            pass
        (leaf / "cgroup.events").write_text("populated 1\nfrozen 1\n")

    thread = threading.Thread(target=kernel)
    thread.start()
    freezer.freeze(group, "workbench/id")
    thread.join()
    freezer.thaw(group, "workbench/id")
    assert (leaf / "cgroup.freeze").read_text() == "0"

    monkeypatch.setattr(freezer, "_PATIENCE", 0.01)
    (leaf / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    with pytest.raises(OSError, match="not all processes stopped"):
        freezer.freeze(group, "workbench/id")
    assert (leaf / "cgroup.freeze").read_text() == "0", "half stopped is not left so"


def test_v2_kill_members_and_out_of_memory(tmp_path: Path) -> None:
    leaf = v2_tree(tmp_path)
    group = Cgroup(Layout("v2", {"": tmp_path}), "workbench/id")
    group.create({})
    (leaf / "cgroup.procs").write_text("11\n")
    (leaf / "below").mkdir()
    (leaf / "below/cgroup.procs").write_text("12\n13\n")
    assert sorted(group.members()) == ["11", "12", "13"], "also those in groups that the container made"
    (leaf / "cgroup.kill").write_text("")
    group.kill()
    assert (leaf / "cgroup.kill").read_text() == "1", "all at once, forks included"
    assert not group.oom_killed()
    (leaf / "memory.events").write_text("low 0\noom 1\noom_kill 1\n")
    assert group.oom_killed()


def test_shares_weigh_between_containers_of_one_parent(tmp_path: Path) -> None:
    """As with Docker, whose containers are children of one group too: twice the shares, about twice the weight."""
    parents = set()
    weights = []
    for name, shares in (("a", 512), ("b", 1024), ("c", 2048)):
        v2_tree(tmp_path)
        leaf = tmp_path / "workbench" / name
        leaf.mkdir()
        (leaf / "cpu.weight").write_text("")
        group = Cgroup(Layout("v2", {"": tmp_path}), f"workbench/{name}")
        group.update({"cpu": {"shares": shares}})
        weights.append(int((leaf / "cpu.weight").read_text()))
        parents.add(leaf.parent)
    assert len(parents) == 1
    assert weights == sorted(weights)
    assert weights[1] == 100, "Docker's default is the kernel's"


def test_hybrid_uses_the_v1_controllers(tmp_path: Path) -> None:
    layout = discover(V1 + UNIFIED)
    group = Cgroup(layout, "workbench/id")
    assert not group.v2
    assert "" not in group.directories
    assert set(group.directories) == {"cpu", "cpuacct", "memory"}


@pytest.mark.root
def test_a_child_is_born_in_a_group_of_v2() -> None:
    """clone3(2) on a real cgroup2 mount, which a hybrid host has as well."""
    root = next((line.split(" ")[4] for line in mountinfo() if " - cgroup2 " in line), "")
    if not root or os.geteuid() != 0:
        pytest.skip("no cgroup2 mount here, or not root")
    group = Cgroup(Layout("v2", {"": Path(root)}), f"wb-test-{os.getpid()}")
    group.directories[""].mkdir()
    try:
        read, write = os.pipe()
        pid, joined = group.fork()
        if pid == 0:
            os.write(write, Path("/proc/self/cgroup").read_bytes())
            os._exit(7)
        assert joined
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        assert f"0::/{group.path}\n".encode() in os.read(read, 1 << 16)
        for fd in (read, write):
            os.close(fd)
    finally:
        group.remove()


def test_without_that_it_is_forked_and_joins(tmp_path: Path) -> None:
    """A group that is no cgroup, as before Linux 5.7."""
    group = Cgroup(Layout("v2", {"": tmp_path}), "group")
    (tmp_path / "group").mkdir()
    pid, joined = group.fork()
    if pid == 0:
        os._exit(3)
    assert not joined
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 3


def mountinfo() -> list[str]:
    return Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
