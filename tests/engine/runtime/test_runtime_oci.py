"""config.json is OCI's: another runtime reads the same document, and the container comes out the same."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from engine.model import Ulimit
from engine.runtime.spec import SpecParams, make_spec
from engine.runtime.spec_resources import DeviceNode
from tests.engine.runtime.conftest import make_root
from tests.patience import PATIENCE

SCRIPT = "id -u; grep -E 'Cap|NoNewPrivs' /proc/self/status; ulimit -n; hostname; cat /proc/self/oom_score_adj; cut -d' ' -f2 /proc/mounts | sort"


@pytest.mark.root
@pytest.mark.peer("runc")
def test_runc_runs_the_same_configuration(box: Any, busybox_root: Path, tmp_path: Path) -> None:
    values: dict[str, Any] = {
        "hostname": "same", "network": "none", "memory": 64 << 20, "pids_limit": 50, "oom_score_adj": 9,
        "ulimits": (Ulimit("nofile", 100, 200),), "tmpfs": {"/a": "size=1m"}, "cap_drop": ("MKNOD",),
        "security_opt": ("no-new-privileges",), "device_nodes": (DeviceNode("/dev/fuse", "c", 10, 229, 0o600),),
        "sysctls": {"net.ipv4.ip_forward": "1"},
    }  # fmt: skip
    ours = box("sh", "-c", SCRIPT, **values)
    assert ours.run() == 0
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    make_root(bundle / "rootfs")
    name = f"workbench-test-{os.getpid()}"
    spec = make_spec(SpecParams(container_id=name, args=["sh", "-c", SCRIPT], **values))
    # The type "time" came with OCI 1.1; Debian 12's runc is older.
    spec["linux"]["namespaces"] = [entry for entry in spec["linux"]["namespaces"] if entry["type"] != "time"]
    (bundle / "config.json").write_text(json.dumps(spec))
    try:
        done = subprocess.run(
            ["runc", "run", "--bundle", str(bundle), name],
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
    finally:
        subprocess.run(["runc", "delete", "--force", name], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr

    def without_groups(text: str) -> list[str]:
        """runc shows more of cgroup v1, and binds /proc/sysrq-trigger on kernels without it."""
        return [line for line in text.splitlines() if not line.startswith("/sys/fs/cgroup/")]

    assert without_groups(ours.output()) == without_groups(done.stdout)


def test_the_documents_shape() -> None:
    """The types that OCI's schema asks for where one could go wrong."""
    spec = make_spec(
        SpecParams("x", ["true"], memory=64 << 20, cpus=0.5, ulimits=(Ulimit("core", -1, -1),), annotations={"a": "b"})
    )
    assert spec["process"]["rlimits"] == [{"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}]
    assert spec["process"]["user"] == {"uid": 0, "gid": 0}
    assert all(isinstance(value, str) for value in spec["annotations"].values())
    assert {type(value) for value in spec["linux"]["resources"]["cpu"].values()} == {int}
    assert {entry["type"] for entry in spec["linux"]["namespaces"]} <= {
        "pid",
        "network",
        "mount",
        "ipc",
        "uts",
        "user",
        "cgroup",
        "time",
    }
    for mount in spec["mounts"]:
        assert mount["destination"].startswith("/")
        assert isinstance(mount["options"], list)
    for rule in spec["linux"]["resources"]["devices"]:
        assert set(rule) <= {"allow", "type", "major", "minor", "access"}
