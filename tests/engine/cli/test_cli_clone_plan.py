"""What of another host's container comes along, and what is named as left."""

from __future__ import annotations

from typing import Any

import pytest

from engine.cli.clone_plan import REDACTED, Here, Plan, plan, secret
from engine.service.wire import container_spec

HERE = Here(free=lambda port, protocol: port != 81, device=lambda path: path == "/dev/fuse", cpus=4)


def planned(
    config: dict[str, Any], host: dict[str, Any], *, mounts: bool = False, redact: bool = False, **more: Any
) -> Plan:
    found = {"Id": "ab" * 32, "Path": "/entry", "Args": ["serve"], "Config": config, "HostConfig": host, **more}
    return plan(found, more.get("kinds", {}), HERE, mounts=mounts, redact=redact)


def test_the_program_and_its_limits_come() -> None:
    made = planned(
        {"Env": ["A=1"], "User": "me", "WorkingDir": "/w", "StopSignal": 15, "Hostname": "ab" * 6, "Labels": {"x": "y"}},
        {"Memory": 1 << 26, "NanoCpus": 2 * 10**9, "PidsLimit": 50, "CapDrop": ["ALL"], "Ulimits": [{"Name": "RLIMIT_NOFILE", "Soft": 1, "Hard": 2}]},
    )  # fmt: skip
    spec = container_spec({**made.body, "Image": "x"}, "name")
    assert (spec.entrypoint, spec.command, spec.env) == ((), ("/entry", "serve"), ("A=1",))
    assert (spec.user, spec.working_dir, spec.stop_signal, spec.hostname) == ("me", "/w", "15", "")
    assert (spec.memory, spec.cpus, spec.pids_limit, spec.cap_drop) == (1 << 26, 2.0, 50, ("ALL",))
    assert [(one.name, one.soft, one.hard) for one in spec.ulimits] == [("nofile", 1, 2)]
    assert spec.labels == {"x": "y"}
    assert made.left == []


def test_what_is_the_other_machines_is_left_and_named() -> None:
    made = planned(
        {"Labels": {"com.docker.compose.project": "p"}, "Hostname": "web"},
        {
            "NetworkMode": "app_net", "PidMode": "host", "IpcMode": "container:x", "RestartPolicy": {"Name": "always"}, "NanoCpus": 8 * 10**9,
            "CpusetCpus": "0-7", "Devices": [{"PathOnHost": "/dev/fuse"}, {"PathOnHost": "/dev/kvm0"}], "DeviceRequests": [{"Driver": "nvidia"}],
            "Runtime": "kata", "LogConfig": {"Type": "fluentd"}, "SecurityOpt": ["label=type:x", "no-new-privileges"], "Links": ["/a:/b"],
        },
        NetworkSettings={"Networks": {"app_net": {}}},
    )  # fmt: skip
    said = "\n".join(made.left)
    for words in ("project", "app_net", "process namespace of host", "IPC namespace of container x", "restart policy always", "cpus 8", "cpuset 0-7",
                  "/dev/kvm0", "GPUs", "runtime kata", "fluentd", "label=type:x", "links"):  # fmt: skip
        assert words in said
    spec = container_spec({**made.body, "Image": "x"}, "name")
    assert (spec.network_mode, spec.pid_mode, spec.restart_policy.name, spec.cpus) == ("default", "", "", 0.0)
    assert [one.path_on_host for one in spec.devices] == ["/dev/fuse"]
    assert (spec.security_opt, spec.hostname) == (("no-new-privileges",), "web")


def test_ports_open_on_the_loopback_alone() -> None:
    made = planned(
        {},
        {
            "PortBindings": {
                "80/tcp": [{"HostIp": "", "HostPort": "80"}],
                "81/udp": [{"HostIp": "0.0.0.0", "HostPort": "81"}],
            }
        },
    )
    bindings = made.body["HostConfig"]["PortBindings"]
    assert bindings == {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "80"}],
        "81/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}],
    }
    assert "port 81" in made.left[0]


def test_mounts() -> None:
    points = [
        {"Type": "volume", "Name": "data", "Source": "/v", "Destination": "/data", "RW": False},
        {"Type": "bind", "Source": "/file", "Destination": "/etc/x.conf", "RW": True},
        {"Type": "bind", "Source": "/sock", "Destination": "/run/d.sock", "RW": True},
        {"Type": "bind", "Source": "/sub", "Destination": "/data/sub", "RW": True},
        {"Type": "tmpfs", "Destination": "/scratch"},
    ]
    kinds = {"/file": "f", "/sock": "o", "/sub": "d"}
    made = planned({}, {}, Mounts=points, kinds=kinds)
    assert made.copies == []
    assert sum("--mounts" in line for line in made.left) == 3
    made = planned({}, {}, Mounts=points, kinds=kinds, mounts=True)
    assert made.copies == [("/data", True), ("/etc/x.conf", False)], "what lies below another comes with it"
    spec = container_spec({**made.body, "Image": "x"}, "name")
    assert spec.volumes == ("/data", "/data/sub")
    assert [(one.type, one.target) for one in spec.mounts] == [("tmpfs", "/scratch")]
    assert any("socket" in line for line in made.left)


@pytest.mark.parametrize(
    ("name", "value", "hidden"),
    [
        ("DB_PASSWORD", "x", REDACTED), ("PGPASSWORD", "x", REDACTED), ("AWS_SECRET_ACCESS_KEY", "x", REDACTED), ("API_KEY", "x", REDACTED),
        ("GITHUB_TOKEN", "x", REDACTED), ("SENTRY_DSN", "https://k@s/1", REDACTED), ("DATABASE_URL", "postgres://u:p@h/d", f"postgres://u:{REDACTED}@h/d"),
        ("MISC", "AKIAABCDEFGHIJKLMNOP", REDACTED), ("MISC", "-----BEGIN RSA PRIVATE KEY-----\nx", REDACTED),
        ("PATH", "/bin", None), ("PWD", "/", None), ("KEYBOARD", "de", None), ("MONKEY", "1", None), ("AUTHOR", "me", None), ("PASSENGERS", "3", None), ("API_KEY", "", None),
    ],
)  # fmt: skip
def test_secrets(name: str, value: str, hidden: str | None) -> None:
    assert secret(name, value) == hidden


def test_a_secret_goes_from_everywhere() -> None:
    made = planned(
        {"Env": ["TOKEN=abcdef123", "B=2"], "Labels": {"l": "has abcdef123 in it"}},
        {},
        redact=True,
        Args=["--token=abcdef123"],
    )
    assert "abcdef123" not in repr(made.body)
    assert made.redacted == ["TOKEN"]
    over = plan(
        {"Path": "x", "Config": {"Env": ["TOKEN=abcdef123"]}}, {}, HERE, mounts=False, redact=True, env=["TOKEN=mine"]
    )
    assert over.body["Env"] == ["TOKEN=mine"]
    assert over.redacted == []
