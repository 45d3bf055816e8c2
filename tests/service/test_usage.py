"""stats, top, update, and what `inspect` and `create` say of isolation and limits: on a real engine."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine.api import ContainerSpec, Device, DeviceLimit, Resources, Ulimit
from engine.cli.flags import parse
from engine.cli.host_flags import HOST_FLAGS, host_values
from engine.cli.usage import row
from engine.errors import Conflict, InvalidInput, NotFound, Unsupported
from engine.linux import cgroup, cgroup_stats
from engine.linux.cgroup import Cgroup, Layout
from engine.local import LocalEngine, open_engine
from engine.model import HostConfig
from engine.service import processes, stats

root = pytest.mark.root
SPIN = ("sh", "-c", "while :; do :; done")


@pytest.fixture
async def engine(data_root: Path) -> AsyncIterator[LocalEngine]:
    opened = await open_engine(data_root)
    await opened.ensure_base()
    yield opened
    for container in await opened.containers(all=True):
        await opened.remove(container.id, force=True)
    await opened.close()


async def running(engine: LocalEngine, *command: str, **more: Any) -> str:
    name = await engine.create(ContainerSpec("workbench/base", command=command or ("sleep", "1000"), **more))
    await engine.start(name)
    return name


def v1(*names: str) -> bool:
    return set(names) <= set(cgroup.here().roots)


@root
async def test_stats(engine: LocalEngine) -> None:
    name = await running(engine, "sh", "-c", "head -c 8388608 /dev/zero > /big; echo; " + SPIN[2], memory=64 << 20)
    async for _line in engine.logs(name, follow=True):  # the file is written
        break
    first = await engine.stats(name)
    while (now := await engine.stats(name)).cpu.total - first.cpu.total < 200_000_000:
        pass
    share = now.cpu_percent(first)
    assert 10 < share <= 100 * now.cpu.online
    assert now.pids == 1
    assert now.memory.limit == 64 << 20
    assert now.memory.used <= now.memory.usage
    assert now.memory.usage - now.memory.used >= 7 << 20, "the file's pages are not counted, as Docker does"
    shown = row(name, now, first)
    assert str(shown["MemUsage"]).endswith(" / 64MiB")
    assert shown["CPUPerc"] == f"{share:.2f}%"
    await engine.kill(name)
    await engine.wait(name)
    with pytest.raises(Conflict, match="is not running"):
        await engine.stats(name)
    assert row("x", None, None)["CPUPerc"] == "--"


@root
@pytest.mark.skipif(
    not ({"cpu", "cpuset"} <= set(cgroup.here().roots) or cgroup.here().version == "v2"), reason="no cpu groups"
)
async def test_cpu_shares_divide_a_busy_cpu(engine: LocalEngine) -> None:
    """Eight to one, on one CPU. What else the machine does takes from both; so the ratio is asked for, and half of it is enough."""
    cpu = str(min(os.sched_getaffinity(0)))
    names = [await running(engine, *SPIN, cpu_shares=shares, cpuset_cpus=cpu) for shares in (2048, 256)]

    async def used() -> list[int]:
        return [(await engine.stats(name)).cpu.total for name in names]

    before = await used()
    while (gained := [now - then for now, then in zip(await used(), before, strict=True)])[0] < 1_000_000_000:
        await asyncio.to_thread(os.sched_yield)
    assert gained[0] > 4 * gained[1], gained
    assert gained[1] > 0, "the small one is not starved"


@root
async def test_top_shows_the_hosts_view_of_its_processes(engine: LocalEngine) -> None:
    name = await running(engine, "sh", "-c", "sleep 1000 & sleep 1000")
    found = await engine.top(name)
    while [line[-1] for line in found.processes].count("sleep 1000") < 2:
        found = await engine.top(name)
    assert found.titles == ("UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD")
    listed = await engine.top(name, ["-o", "pid,user=WHO,args"])
    assert listed.titles == ("PID", "WHO", "COMMAND")
    assert {line[0] for line in listed.processes} == {line[1] for line in found.processes}
    assert (await engine.top(name, ["aux"])).titles[0] == "USER"
    for wrong in (["-o", "nonsense"], ["-Z"], ["-o"]):
        with pytest.raises(InvalidInput):
            await engine.top(name, wrong)


@root
async def test_no_program_of_the_image_looks_at_it(engine: LocalEngine) -> None:
    """CVE-2022-1227 (US-13): traps in the place of what other engines run."""
    script = """
    for name in ps nsenter sh tar gzip; do printf '#!/bin/bash\\necho x > /trapped' > /usr/local/bin/$name; chmod +x /usr/local/bin/$name; done
    echo ready; exec sleep 1000
    """
    name = await running(engine, "bash", "-c", script)
    async for _line in engine.logs(name, follow=True):
        break
    await engine.top(name, ["aux"])
    await engine.stats(name)
    differences = {one.path for one in await engine.changes(name)}
    assert "/usr/local/bin/ps" in differences
    assert "/trapped" not in differences


@root
@pytest.mark.skipif(not v1("memory", "cpu", "cpuset", "pids"), reason="no cgroup v1 controllers here")
async def test_update_holds_now_and_after_a_restart(engine: LocalEngine) -> None:
    name = await running(engine, memory=32 << 20, cpus=0.5)
    group = Cgroup(cgroup.here(), f"workbench/{name}")

    def value(controller: str, file: str) -> str:
        return (cgroup.here().roots[controller] / "workbench" / name / file).read_text().strip()

    assert value("memory", "memory.limit_in_bytes") == str(32 << 20)
    assert list(await engine.update(name, Resources(cpus=0.25, pids_limit=9, cpuset_cpus="0", memory=48 << 20))) == []
    assert value("cpu", "cpu.cfs_quota_us") == "25000"
    assert value("pids", "pids.max") == "9"
    assert value("cpuset", "cpuset.cpus") == "0"
    assert value("memory", "memory.limit_in_bytes") == str(48 << 20)
    (pid,) = group.members()
    assert (cgroup.here().roots["cpuset"] / "workbench" / name / "cgroup.procs").read_text().split() == [pid]
    await engine.update(name, Resources(pids_limit=-1))
    assert value("pids", "pids.max") == "max"
    host = (await engine.container(name)).config["HostConfig"]
    assert isinstance(host, dict)
    assert (host["NanoCpus"], host["Memory"], host["CpusetCpus"]) == (250_000_000, 48 << 20, "0")
    await engine.kill(name)
    await engine.wait(name)
    await engine.update(name, Resources(memory=56 << 20))
    await engine.start(name)
    assert value("memory", "memory.limit_in_bytes") == str(56 << 20)
    assert value("cpuset", "cpuset.cpus") == "0"
    with pytest.raises(InvalidInput, match="already set memoryswap limit"):
        await engine.update(name, Resources(memory=65 << 20))
    await engine.update(name, Resources(memory=65 << 20, memory_swap=-1))
    with pytest.raises(InvalidInput, match="NanoCPUs has already been set"):
        await engine.update(name, Resources(cpu_quota=5000))
    with pytest.raises(NotFound):
        await engine.update("no-such", Resources(cpus=0.1))
    await engine.kill(name)
    await engine.wait(name)
    assert not (cgroup.here().roots["cpuset"] / "workbench" / name).exists()


@root
async def test_what_inspect_shows(engine: LocalEngine) -> None:
    name = await engine.create(
        ContainerSpec(
            "workbench/base", command=("true",), pid_mode="host", tmpfs={"/x": "size=1m"}, group_add=("5",),
            devices=(Device("/dev/null", "/dev/n", "r"),), ulimits=(Ulimit("nofile", 10, 20),), init=False,
            security_opt=("systempaths=unconfined",), memory=64 << 20, oom_score_adj=7, sysctls={"kernel.msgmax": "9"},
        )
    )  # fmt: skip
    host = (await engine.container(name)).config["HostConfig"]
    assert isinstance(host, dict)
    expected: dict[str, Any] = {
        "PidMode": "host", "IpcMode": "private", "CgroupnsMode": "private", "UTSMode": "", "Tmpfs": {"/x": "size=1m"},
        "GroupAdd": ["5"], "Ulimits": [{"Name": "nofile", "Hard": 20, "Soft": 10}], "MaskedPaths": [],
        "ReadonlyPaths": [], "Memory": 64 << 20, "MemorySwap": 128 << 20, "OomScoreAdj": 7, "ShmSize": 64 << 20,
        "Sysctls": {"kernel.msgmax": "9"}, "MemorySwappiness": None,
        "Devices": [{"PathOnHost": "/dev/null", "PathInContainer": "/dev/n", "CgroupPermissions": "r"}],
    }  # fmt: skip
    assert {key: host[key] for key in expected} == expected


@root
@pytest.mark.parametrize(
    ("values", "match"),
    [
        ({"cpus": 9999.0}, "Range of CPUs is from 0.01 to"),
        ({"cpuset_cpus": "60000"}, "Requested CPUs are not available - requested 60000"),
        ({"cpuset_cpus": "a"}, "Invalid value a for --cpuset-cpus"),
        ({"memory": 1 << 20}, "Minimum memory limit allowed is 6MB"),
        ({"memory_swap": 64 << 20}, "always set the Memory limit"),
        ({"memory": 64 << 20, "memory_swap": 32 << 20}, "larger than memory limit"),
        ({"memory": 64 << 20, "memory_reservation": 65 << 20}, "memory reservation"),
        ({"cpus": 0.5, "cpu_period": 5000}, "CPU Period cannot both be set"),
        ({"cpu_shares": 1}, "minimum allowed cpu-shares is 2"),
        ({"cpu_period": 5}, "CPU cfs period"),
        ({"cpu_quota": 5}, "CPU cfs quota"),
        ({"blkio_weight": 5}, "from 10 to 1000"),
        ({"memory_swappiness": 101}, "0-100"),
        ({"oom_score_adj": 1001}, "oom score adj"),
        ({"uts_mode": "host", "hostname": "x"}, "hostname and the UTS mode"),
        ({"cgroup_parent": "x.slice"}, "systemd slice"),
        ({"cgroup_parent": "/../x"}, "holds '..'"),
        ({"annotations": {"org.systemd.property.ExecStart": "x"}}, "systemd unit"),
    ],
)
async def test_what_create_refuses(engine: LocalEngine, values: dict[str, Any], match: str) -> None:
    with pytest.raises(InvalidInput, match=match):
        await engine.create(ContainerSpec("workbench/base", command=("true",), **values))
    assert await engine.containers(all=True) == []


@root
async def test_what_cannot_be_done_is_said(engine: LocalEngine) -> None:
    with pytest.raises(Unsupported, match="SELinux"):
        await engine.create(ContainerSpec("workbench/base", command=("true",), security_opt=("label=level:s0",)))


@root
async def test_user_namespaces_for_every_container(engine: LocalEngine, data_root: Path) -> None:
    settings = data_root / "settings.json"
    settings.write_text('{"runtime": {"userns-remap": "200000:65536"}}')
    try:
        with pytest.raises(InvalidInput, match="privileged mode is incompatible"):
            await engine.create(ContainerSpec("workbench/base", command=("true",), privileged=True))
        with pytest.raises(InvalidInput, match="host PID namespace"):
            await engine.create(ContainerSpec("workbench/base", command=("true",), pid_mode="host"))
        command = "echo x > /etc/hosts && echo ready; sleep 1000"
        first = await running(engine, "sh", "-c", command, name="donor", ipc_mode="shareable")
        async for line in engine.logs(first, follow=True):
            assert line.text == "ready"
            break
        pid = (await engine.container(first)).summary.pid
        assert Path(f"/proc/{pid}").stat().st_uid == 200_000
        second = await running(engine, ipc_mode="container:donor", pid_mode="container:donor")
        other = (await engine.container(second)).summary.pid
        assert Path(f"/proc/{other}/ns/user").readlink() == Path(f"/proc/{pid}/ns/user").readlink()
        with pytest.raises(InvalidInput, match="host's network namespace"):
            await engine.create(ContainerSpec("workbench/base", command=("true",), network_mode="host"))
        third = await running(engine, userns_mode="host", privileged=True)
        assert Path(f"/proc/{(await engine.container(third)).summary.pid}").stat().st_uid == 0
    finally:
        settings.unlink()


@root
async def test_sharing_by_name(engine: LocalEngine) -> None:
    with pytest.raises(NotFound, match="No such container: nobody"):
        await engine.create(ContainerSpec("workbench/base", command=("true",), pid_mode="container:nobody"))
    first = await running(engine, name="donor", ipc_mode="shareable")
    private = await running(engine, name="private")
    second = await running(engine, "sh", "-c", "sleep 999", pid_mode="container:donor", ipc_mode="container:donor")
    host = (await engine.container(second)).config["HostConfig"]
    assert isinstance(host, dict)
    assert host["PidMode"] == host["IpcMode"] == f"container:{first}"
    seen = [line[-1] for line in (await engine.top(second)).processes]
    assert "sleep 999" in seen or "sh -c sleep 999" in seen
    third = await engine.create(ContainerSpec("workbench/base", command=("true",), ipc_mode=f"container:{private}"))
    with pytest.raises(InvalidInput, match="non-shareable IPC"):
        await engine.start(third)
    await engine.kill(first)
    await engine.wait(first)
    fourth = await engine.create(ContainerSpec("workbench/base", command=("true",), pid_mode="container:donor"))
    with pytest.raises(Conflict, match="non running container: donor"):
        await engine.start(fourth)


# --- without a container ---------------------------------------------------------------------------------


def test_flags_as_docker_has_them(tmp_path: Path) -> None:
    profile = tmp_path / "profile.json"
    profile.write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    words = [
        "--device", "/dev/fuse", "--device", "/dev/fuse:/dev/f", "--device", "/dev/fuse:r", "--ulimit", "nofile=10:20",
        "--ulimit", "core=-1", "--sysctl", "net.x=1=2", "--tmpfs", "/x:size=1m", "--tmpfs", "/y", "--pid", "host",
        "--device-read-bps", "/dev/sda:1mb", "--device-write-iops", "/dev/sda:7", "-c", "512", "-m", "1g",
        "--memory-swap", "-1", "--pids-limit", "0", "--security-opt", f"seccomp={profile}", "--annotation", "a=b",
    ]  # fmt: skip
    config = HostConfig(**host_values(parse(words, HOST_FLAGS, "run")))
    assert config.devices == (Device("/dev/fuse"), Device("/dev/fuse", "/dev/f"), Device("/dev/fuse", "", "r"))
    assert config.ulimits == (Ulimit("nofile", 10, 20), Ulimit("core", -1, -1))
    assert config.sysctls == {"net.x": "1=2"}
    assert config.tmpfs == {"/x": "size=1m", "/y": ""}
    assert config.blkio_device_read_bps == (DeviceLimit("/dev/sda", 1 << 20),)
    assert config.blkio_device_write_iops == (DeviceLimit("/dev/sda", 7),)
    assert (config.cpu_shares, config.memory, config.memory_swap, config.pids_limit) == (512, 1 << 30, -1, -1)
    assert config.security_opt == ('seccomp={"defaultAction": "SCMP_ACT_ALLOW"}',)
    assert (config.pid_mode, config.annotations) == ("host", {"a": "b"})


@pytest.mark.parametrize(
    "words",
    [
        ["--device", "/dev/a:b"], ["--device", "/dev/a:/b:x"], ["--device", ""], ["--ulimit", "nofile"],
        ["--ulimit", "nofile=a"], ["--sysctl", "x"], ["--device-read-bps", "/dev/sda"], ["--device-read-bps", "sda:1"],
        ["--device-read-iops", "/dev/sda:1mb"], ["--security-opt", "seccomp=/no/such/file"],
    ],
)  # fmt: skip
def test_flags_that_are_wrong(words: list[str]) -> None:
    with pytest.raises((InvalidInput, NotFound)):
        host_values(parse(words, HOST_FLAGS, "run"))
    for flag in ("--gpus=all", "--storage-opt=size=1g"):
        with pytest.raises(Unsupported):
            host_values(parse([flag], HOST_FLAGS, "run"))


def test_readings_of_v2(tmp_path: Path) -> None:
    """A recorded group of a v2 host."""
    files = {
        "cpu.stat": "usage_usec 1500\nuser_usec 1000\nsystem_usec 500\nnr_periods 4\nnr_throttled 2\nthrottled_usec 9\n",
        "memory.current": "1048576\n",
        "memory.max": "max\n",
        "memory.stat": "anon 4096\nfile 524288\ninactive_file 262144\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n",
        "pids.current": "7\n",
        "pids.max": "100\n",
        "io.stat": "8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=0 dios=0\n259:1 \n",
    }
    (tmp_path / "id").mkdir()
    for name, content in files.items():
        (tmp_path / "id" / name).write_text(content)
    found = cgroup_stats.read(Cgroup(Layout("v2", {"": tmp_path}), "id"))
    assert (found.cpu_total, found.cpu_user, found.cpu_kernel) == (1_500_000, 1_000_000, 500_000)
    assert (found.periods, found.throttled_periods, found.throttled_time) == (4, 2, 9000)
    assert (found.memory, found.memory_limit, found.memory_failures) == (1 << 20, 0, 3)
    assert cgroup_stats.working_set(found.memory, found.memory_stat, v2=True) == (1 << 20) - 262144
    assert (found.pids, found.pids_limit) == (7, 100)
    assert found.block == {
        (8, 0, "read"): (10, 1),
        (8, 0, "write"): (20, 2),
        (259, 1, "read"): (0, 0),
        (259, 1, "write"): (0, 0),
    }


def test_readings_of_v1(tmp_path: Path) -> None:
    files = {
        "cpuacct/id/cpuacct.usage": "77\n",
        "cpuacct/id/cpuacct.usage_percpu": "70 7 \n",
        "cpuacct/id/cpuacct.stat": "user 3\nsystem 4\n",
        "memory/id/memory.usage_in_bytes": "1000\n",
        "memory/id/memory.limit_in_bytes": "9223372036854771712\n",
        "memory/id/memory.stat": "inactive_file 1\ntotal_inactive_file 400\n",
        "blkio/id/blkio.throttle.io_service_bytes_recursive": "8:0 Read 5\n8:0 Write 6\n8:0 Total 11\nTotal 11\n",
        "blkio/id/blkio.throttle.io_serviced_recursive": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    layout = Layout("v1", {name: tmp_path / name for name in ("cpuacct", "memory", "blkio", "pids")})
    found = cgroup_stats.read(Cgroup(layout, "id"))
    assert (found.cpu_total, found.cpu_each, found.cpu_kernel) == (77, (70, 7), 4 * 10**9 // 100)
    assert (found.memory, found.memory_limit) == (1000, 0)
    assert cgroup_stats.working_set(found.memory, found.memory_stat, v2=False) == 600
    assert found.block == {(8, 0, "read"): (5, 1), (8, 0, "write"): (6, 2)}


def test_readings_of_the_host() -> None:
    assert stats.host_cpu("cpu  1 2 3 4 5 6 7 8 9 0\ncpu0 1 1\ncpu1 1 1\nintr 5\n") == (28 * 10**7, 2)
    text = "Inter-|\n face |\n    lo: 1 1 0 0 0 0 0 0 1 1 0 0 0 0 0 0\n  eth0: 10 2 3 4 0 0 0 0 20 5 6 7 0 0 0 0\n"
    (counter,) = stats.network_counters(text).values()
    assert (counter.rx_bytes, counter.rx_dropped, counter.tx_bytes, counter.tx_dropped) == (10, 4, 20, 7)


@pytest.mark.parametrize(
    ("arguments", "titles"),
    [
        ([], "UID PID PPID C STIME TTY TIME CMD"),
        (["-ef"], "UID PID PPID C STIME TTY TIME CMD"),
        (["-e"], "PID TTY TIME CMD"),
        (["aux"], "USER PID %CPU %MEM VSZ RSS TTY STAT START TIME COMMAND"),
        (["-eo", "pid,comm"], "PID COMMAND"),
        (["-opid,ppid"], "PID PPID"),
        (["-o pid -o %cpu,etime"], "PID %CPU ELAPSED"),
        (["--format=pid"], "PID"),
    ],
)
def test_the_words_of_ps(arguments: list[str], titles: str) -> None:
    assert [title for title, _value in processes.columns(arguments)] == titles.split()
