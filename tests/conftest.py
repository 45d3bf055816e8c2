"""What every test may use: a data root of its own, and skips that say why."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.runtime.places import runtime_dir
from tests.faults.leaks import LeakCheck, end_supervisor

PEERS = {
    "runc": "runc",
    "crun": "crun",
    "docker": "docker",
    "apparmor_parser": "apparmor_parser",
    "registry": "docker-registry",
    "skopeo": "skopeo",
    "tmux": "tmux",
    "screen": "screen",
    "less": "less",
    "newuidmap": "newuidmap",
    "pasta": "pasta",
    "systemd-analyze": "systemd-analyze",
    "systemd": "/lib/systemd/systemd-logind",
    "slirp4netns": "slirp4netns",
    "podman": "podman",
    "openssl": "openssl",
    "sshd": "/usr/sbin/sshd",
    "ssh-agent": "ssh-agent",
    "git": "git",
    "busybox": "busybox",
    "vim": "vim",
    "fish": "fish",
    "firewalld": "firewalld",
    "dbus-daemon": "dbus-daemon",
    "ip": "ip",
    "nft": "nft",
    "iptables-legacy": "iptables-legacy",
    "buildx": "docker-buildx",
    "compose": "docker-compose",
}
# Plugins of the docker command line: one installed for all would change what `docker build` is in every test.
PLUGINS = os.pathsep.join(
    [os.environ.get("DOCKER_PLUGINS", ""), "/usr/libexec/docker/cli-plugins", "/usr/lib/docker/cli-plugins"]
)


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(LeakCheck(), "leak-check")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root") and os.geteuid() != 0:
        pytest.skip("needs root: namespaces, mounts and ownership")
    for mark in item.iter_markers("peer"):
        program = PEERS[mark.args[0]]
        if shutil.which(program, path=PLUGINS if mark.args[0] in ("buildx", "compose") else None) is None:
            if os.environ.get("CI") == "true":
                pytest.fail(f"{program} is missing in CI: .ci/run installs it")
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """One data root for the session: the embedded base image is made once. Its supervisor ends with the tests."""
    root = tmp_path_factory.mktemp("wb")
    yield root
    end_supervisor(runtime_dir(root))
