"""Devices: nodes, the device filter, `--privileged`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from engine.errors import InvalidInput, StartFailed
from engine.linux.devices import all_devices
from engine.model import HostConfig
from engine.runtime.spec import SpecParams, make_spec
from engine.runtime.spec_resources import DeviceNode
from engine.service.hostside import device_nodes

pytestmark = pytest.mark.root
MakeBox = Callable[..., Any]
# fuse: nobody needs it, and opening it takes no capability. Where the kernel has none, that is another error.
FUSE = (10, 229)


def test_devices(box: MakeBox) -> None:
    node = DeviceNode("/dev/deep/fuse", "c", *FUSE, 0o640, 0, 50, "r")
    one = box("sh", "-c", "stat -c '%a %g %t:%T' /dev/deep/fuse; : < /dev/deep/fuse; echo x > /dev/deep/fuse",
              device_nodes=(node,))  # fmt: skip
    assert one.run() != 0
    assert one.output() == "640 50 a:e5\n"
    assert one.output("stderr").count("Operation not permitted") == 1
    taken = box("true", device_nodes=(DeviceNode("/bin/sh", "c", *FUSE, 0o640),))
    with pytest.raises(StartFailed, match="device /bin/sh: the image has something else there"):
        taken.start()


def test_device_rules(box: MakeBox) -> None:
    script = "mknod /tmp/k c 10 229; : < /tmp/k"
    refused = box("sh", "-c", script)
    assert refused.run() != 0
    assert "Operation not permitted" in refused.output("stderr")
    allowed = box("sh", "-c", script, device_cgroup_rules=("c 10:229 r",))
    allowed.run()
    assert "Operation not permitted" not in allowed.output("stderr")
    for text in ("c 1:11", "x 1:1 r", "c 1:1 z", "c a:b r", "c 1:11 r\n"):
        with pytest.raises(InvalidInput, match="invalid device cgroup format"):
            make_spec(SpecParams("x", ["true"], device_cgroup_rules=(text,)))


def test_privileged_has_the_hosts_devices(box: MakeBox) -> None:
    one = box("sh", "-c", "ls -l /dev/null /dev/ptmx; find /dev -type c -o -type b | wc -l", privileged=True,
              device_nodes=device_nodes(HostConfig(privileged=True)))  # fmt: skip
    assert one.run() == 0
    assert int(one.output().split()[-1]) >= len(all_devices())
