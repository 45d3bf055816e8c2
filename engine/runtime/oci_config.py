"""The `config.json` that an OCI runtime is given, from the one that the native launcher reads. Pure.

The same document, with what only the native launcher understands put in OCI's terms: users are numbers, mounts are of
sources that were opened and verified before (`oci_stage`), namespaces are named by descriptors of the monitor's. Nothing
in it is newer than OCI 1.0 but a time namespace, which is left out for a runtime that does not know it (as Docker has none).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from engine.linux import capability
from engine.runtime.rootfs_protect import thermal_throttle
from engine.runtime.spec_process import exec_process
from engine.runtime.users import Identity

INIT = "/sbin/workbench-init"  # where `--init`'s program is mounted
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave")


def document(
    spec: Mapping[str, Any],
    identity: Identity,
    *,
    root: str,
    permitted: int,
    cgroup_root: str,
    sources: Mapping[str, str],
    namespaces: Mapping[str, str],
    extra: Sequence[dict[str, Any]] = (),
    args: Sequence[str] = (),
) -> dict[str, Any]:
    """`permitted`: the capabilities that this host lets anybody have, as bits; `cgroup_root`: the group that ours are below, ""
    for the topmost; `sources`: for the destination of each bind or image mount, what is to be bound; `namespaces`: paths by
    OCI type, over those of the document; `extra`: further mounts; `args`: instead of the command's own."""
    linux, base = spec["linux"], spec["process"]
    spaces = _namespaces(spec, namespaces)
    kinds = {entry["type"] for entry in spaces}
    process = {**base, **_identified(base, identity, permitted), "args": list(args or base["args"])}
    if base.get("terminal"):
        process |= _size(spec["workbench"]["tty_size"])
    mounts = [_mount(entry, sources) for entry in spec["mounts"]]
    result: dict[str, Any] = {
        "ociVersion": "1.1.0" if "time" in kinds else "1.0.2",
        "process": process,
        "root": {"path": root, "readonly": spec["root"]["readonly"]},
        "mounts": [entry for entry in mounts if entry is not None] + list(extra),
        "annotations": spec["annotations"],
        "linux": {
            **{key: value for key, value in linux.items() if key != "namespaces"},
            "namespaces": spaces,
            "maskedPaths": [*linux["maskedPaths"], *thermal_throttle(linux["maskedPaths"])],
            # From the mount on: else it would be below the runtime's own group.
            "cgroupsPath": f"{cgroup_root}/{linux['cgroupsPath'].lstrip('/')}",
            "sysctl": _sysctls(spec, kinds),
        },
    }
    if spec["hostname"] and "uts" in kinds:
        result["hostname"] = spec["hostname"]
    propagation = _root_propagation(spec["mounts"])
    if propagation:
        result["linux"]["rootfsPropagation"] = propagation
    return result


def _namespaces(spec: Mapping[str, Any], paths: Mapping[str, str]) -> list[dict[str, Any]]:
    keep_time = bool(spec["workbench"]["runtime"].get("time"))
    found = []
    for entry in spec["linux"]["namespaces"]:
        kind = entry["type"]
        if kind == "time" and not keep_time:
            continue
        found.append({"type": kind, "path": paths[kind]} if kind in paths else dict(entry))
    return found


def _sysctls(spec: Mapping[str, Any], kinds: set[str]) -> dict[str, str]:
    """With the domain name, which runtimes of OCI 1.0 have no field for; without what a user namespace refuses."""
    found = dict(spec["linux"]["sysctl"])
    if "user" in kinds:
        found.pop("net.ipv4.ping_group_range", None)  # a range of groups that are not all mapped
    if spec.get("domainname") and "uts" in kinds:
        found["kernel.domainname"] = spec["domainname"]
    return found


def _mount(entry: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Any] | None:
    where, kind = entry["destination"], entry["type"]
    if where in sources:
        options = entry["options"] if kind == "bind" else ["ro" if "ro" in entry["options"] else "rw"]
        kept = [option for option in options if option in _PROPAGATION or option in ("rw", "bind", "rbind")]
        if "ro" in options or "rro" in options:
            kept.append("ro")  # the mounts below were made read-only before
        if not {"bind", "rbind"} & set(kept):
            kept.append("rbind")
        others = [option for option in options if option.startswith("no") and option != "nocopy"]
        return {"destination": where, "type": "bind", "source": sources[where], "options": kept + others}
    if kind in ("bind", "overlay"):
        return None
    result = {key: copy.copy(entry[key]) for key in ("destination", "type", "source", "options")}
    if where == "/dev":  # a tmpfs of the user's: the runtime makes the devices in it
        result["options"] = [option for option in entry["options"] if option != "nodev"]
    return result


def _root_propagation(mounts: Sequence[Mapping[str, Any]]) -> str:
    """As Docker has it: what is to be passed on has to be passed on by the root."""
    given = {option.removeprefix("r") for entry in mounts for option in entry["options"] if entry["type"] == "bind"}
    return "shared" if "shared" in given else "rslave" if "slave" in given else ""


def _identified(process: Mapping[str, Any], identity: Identity, permitted: int) -> dict[str, Any]:
    """User, environment and capabilities of a process that runs as `identity`."""
    env = list(process["env"])
    if not any(entry.startswith("HOME=") and entry != "HOME=" for entry in env):
        env = [entry for entry in env if not entry.startswith("HOME=")] + [f"HOME={identity.home}"]
    caps = {
        kind: [name for name in names if permitted >> capability.NUMBER[name.removeprefix("CAP_")] & 1]
        for kind, names in process["capabilities"].items()
    }
    if identity.uid != 0:  # Docker gives a user other than root the bounding set and nothing else
        caps = {"bounding": caps["bounding"], "effective": [], "permitted": []}
    return {
        "user": {"uid": identity.uid, "gid": identity.gid, "additionalGids": list(identity.groups)},
        "env": env,
        "capabilities": caps,
    }


def _size(rows_columns: Sequence[int]) -> dict[str, Any]:
    rows, columns = rows_columns
    return {"consoleSize": {"height": rows, "width": columns}} if rows and columns else {}


def process_document(
    spec: Mapping[str, Any], request: Mapping[str, Any], identity: Identity, permitted: int
) -> dict[str, Any]:
    """The process of an exec, for `exec --process`."""
    process, _user = exec_process(dict(spec), dict(request))
    base = spec["process"]
    result = {
        **process,
        **_identified(process, identity, permitted),
        "terminal": bool(request.get("tty")),
        "oomScoreAdj": base.get("oomScoreAdj", 0),
    }
    if "apparmorProfile" in base:
        result["apparmorProfile"] = "unconfined" if request.get("privileged") else base["apparmorProfile"]
    if result["terminal"]:
        result |= _size(request.get("tty_size") or (0, 0))
    return result
