"""The AppArmor profile that containers run under where the host has AppArmor, and putting it into the kernel."""

from __future__ import annotations

import os
import subprocess

DEFAULT = "workbench-default"
_PARSERS = ("/sbin/apparmor_parser", "/usr/sbin/apparmor_parser")

# What Docker's own profile holds back, for the same reasons: a container is to reach the kernel's and the host's settings by
# no path, even where a mask is missing. No tunables and no abstractions are included: they need not be installed.
PROFILE = f"""
profile {DEFAULT} flags=(attach_disconnected,mediate_deleted) {{
  capability,
  file,
  umount,
  network,
  deny network alg,

  signal (receive) peer=unconfined,
  signal (send, receive) peer={DEFAULT},
  ptrace (trace, tracedby, read, readby) peer={DEFAULT},

  deny mount,

  deny /proc/* w,
  deny /proc/{{acpi,asound,bus,driver,fs,irq,scsi,sysvipc,tty}}/** w,
  deny /proc/sys/{{abi,crypto,debug,dev,fs,net,sunrpc,user,vm}}/** w,
  deny /proc/sys/kernel/[^s]* w,
  deny /proc/sys/kernel/[^s]*/** w,
  deny /proc/sys/kernel/s[^h]* w,
  deny /proc/sys/kernel/sh[^m]* w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,

  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/firmware/** rwklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/kernel/security/** rwklx,
}}
"""


def load_default(parsers: tuple[str, ...] = _PARSERS) -> None:
    """Puts `PROFILE` into the kernel. Raises OSError: without the parser, or when it refuses."""
    parser = next((path for path in parsers if os.access(path, os.X_OK)), None)
    if parser is None:
        raise FileNotFoundError(2, "apparmor_parser is not installed, which compiles profiles")
    done = subprocess.run(
        [parser, "-Kr"],
        input=PROFILE.encode(),
        capture_output=True,
        check=False,
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        raise OSError(22, f"apparmor_parser: {words[-1] if words else f'exit code {done.returncode}'}")
