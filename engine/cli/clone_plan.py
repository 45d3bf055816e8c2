"""What a container of another host becomes here: its `inspect` document as the body of a create, and what is left behind.

Pure. Everything that keeps the program as it was comes along: command, environment, user, limits, capabilities, system call
filter, ports (on the loopback). What belongs to the other machine (its networks, devices, paths, namespaces, restarts) does not,
and each is named.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

REDACTED = "REDACTED"
_SECRET_NAME = re.compile(
    r"PASS(WORD|WD|PHRASE|CODE)?(_|$|\d)|(^|_)PWD_|SECRET|TOKEN|CREDENTIAL|PRIVATE|API_?KEY|ACCESS_?KEY|(_|^)KEY(S|_ID)?$|(^|_)AUTH(_|$)"
    r"|DSN|CONNECTION_?STRING|(^|_)SALT$|SIGNATURE|COOKIE|WEBHOOK|(^|_)CERT(_|$)|LICEN[CS]E_?KEY|(^|_)PIN$|(^|_)OTP(_|$)",
    re.IGNORECASE,
)
# Published forms: PEM, JSON web tokens, keys of AWS, GitHub, GitLab, Slack, Stripe, Google, OpenAI and the like.
_SECRET_VALUE = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY|\beyJ[\w-]{10,}\.[\w-]{10,}\.|\bA[KS]IA[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bglpat-[\w-]{15,}"
    r"|\bxox[abprs]-[\w-]{10,}|\b[sr]k_(live|test)_\w{10,}|\bAIza[\w-]{30,}|\bsk-[\w-]{20,}"
)
_URL_PASSWORD = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s:/@]*:)([^\s@/]+)(@)", re.IGNORECASE)
_CARRIED = (
    "Memory", "MemorySwap", "MemoryReservation", "OomKillDisable", "NanoCpus", "CpuShares", "CpuPeriod", "CpuQuota", "PidsLimit",
    "BlkioWeight", "CapAdd", "CapDrop", "ReadonlyRootfs", "Privileged", "Init", "ShmSize", "Sysctls", "Tmpfs", "GroupAdd",
    "OomScoreAdj", "ExtraHosts", "Dns", "DnsOptions", "DnsSearch",
)  # fmt: skip
_FOREIGN_LABELS = ("com.docker.compose.", "io.podman.", "io.containers.", "workbench.")
_OWN_RUNTIMES = ("", "runc", "crun", "oci", "native", "io.containerd.runc.v2")


@dataclass(slots=True)
class Plan:
    """`body` is that of Docker's create, without the image; `copies` the mounts to bring: path, and whether a folder;
    `left` what is not as it was there, a sentence each; `redacted` the names of variables."""

    body: dict[str, Any]
    copies: list[tuple[str, bool]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    redacted: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Here:
    """What this machine can give. `free` says whether a TCP or UDP port of the loopback is free."""

    free: Callable[[int, str], bool]
    device: Callable[[str], bool]
    cpus: int


def plan(
    found: Mapping[str, Any],
    kinds: Mapping[str, str],
    here: Here,
    *,
    mounts: bool,
    redact: bool,
    env: Sequence[str] = (),
) -> Plan:
    """`found` and `kinds` are from `CloneService.look`; `env` ("K=V") goes over the container's own."""
    config, host = _object(found, "Config"), _object(found, "HostConfig")
    made = Plan({})
    program = [str(found.get("Path") or ""), *_texts(found.get("Args"))]
    made.body = {
        "Entrypoint": [""],
        "Cmd": [word for word in program if word or program[0]],
        "Env": _environment(_texts(config.get("Env")), env, made, redact=redact),
        "Labels": _labels(config, made),
        "HostConfig": {key: host[key] for key in _CARRIED if host.get(key) not in (None, "", [], {}, 0, False)},
        **{key: config[key] for key in ("User", "WorkingDir", "Domainname") if config.get(key)},
        **{key: True for key in ("Tty", "OpenStdin", "StdinOnce") if config.get(key)},
    }
    if (signal := config.get("StopSignal")) not in (None, ""):
        made.body["StopSignal"] = str(signal)  # Podman's may be a number
    if isinstance(config.get("StopTimeout"), int):
        made.body["StopTimeout"] = config["StopTimeout"]
    if isinstance(config.get("Healthcheck"), Mapping) and config["Healthcheck"].get("Test"):
        made.body["Healthcheck"] = dict(config["Healthcheck"])
    hostname = str(config.get("Hostname") or "")
    if hostname and not str(found.get("Id", "")).startswith(hostname) and host.get("NetworkMode") != "host":
        made.body["Hostname"] = hostname
    _limits(host, made, here)
    _network(found, config, host, made, here)
    _isolation(host, made)
    _mounts(found, kinds, made, wanted=mounts)
    _life(host, made)
    if redact:
        _hide_elsewhere(_texts(config.get("Env")), made)
    return made


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


# --- the environment -------------------------------------------------------------------------------------


def secret(name: str, value: str) -> str | None:
    """The value without what is secret in it; None when nothing is."""
    if not value:
        return None
    if _URL_PASSWORD.search(value):
        return _URL_PASSWORD.sub(rf"\1{REDACTED}\3", value)
    if _SECRET_NAME.search(name) or _SECRET_VALUE.search(value):
        return REDACTED
    return None


def _environment(entries: Sequence[str], over: Sequence[str], made: Plan, *, redact: bool) -> list[str]:
    given = {entry.partition("=")[0]: entry for entry in over}
    result = []
    for entry in entries:
        name, _, value = entry.partition("=")
        if name in given:
            continue
        hidden = secret(name, value) if redact else None
        if hidden is not None:
            made.redacted.append(name)
        result.append(f"{name}={hidden}" if hidden is not None else entry)
    return [*result, *given.values()]


def _hide_elsewhere(entries: Sequence[str], made: Plan) -> None:
    """A value that was taken out of the environment goes from the command, the labels and the health check, too."""
    values = [value for name, _, value in (entry.partition("=") for entry in entries) if name in made.redacted]
    values = sorted((value for value in values if len(value) >= 6), key=len, reverse=True)

    def hide(value: Any) -> Any:
        if isinstance(value, str):
            for one in values:
                value = value.replace(one, REDACTED)
            return value
        if isinstance(value, list):
            return [hide(one) for one in value]
        return {key: hide(one) for key, one in value.items()} if isinstance(value, dict) else value

    for key in ("Cmd", "Labels", "Healthcheck"):
        if key in made.body:
            made.body[key] = hide(made.body[key])


def _labels(config: Mapping[str, Any], made: Plan) -> dict[str, str]:
    every = {str(key): str(value) for key, value in _object(config, "Labels").items()}
    kept = {key: value for key, value in every.items() if not key.startswith(_FOREIGN_LABELS)}
    if len(kept) != len(every):
        made.left.append("labels of its project there: the clone belongs to no project here")
    return kept


# --- the machine -----------------------------------------------------------------------------------------


def _limits(host: Mapping[str, Any], made: Plan, here: Here) -> None:
    body = made.body["HostConfig"]
    ulimits = [one for one in host.get("Ulimits") or () if isinstance(one, Mapping)]
    if ulimits:
        body["Ulimits"] = [{**one, "Name": str(one.get("Name", "")).lower().removeprefix("rlimit_")} for one in ulimits]
    if isinstance(host.get("MemorySwappiness"), int) and host["MemorySwappiness"] >= 0:
        body["MemorySwappiness"] = host["MemorySwappiness"]
    wanted = str(host.get("CpusetCpus") or "")
    numbers = [int(number) for number in re.findall(r"\d+", wanted)]
    if wanted and max(numbers, default=0) < here.cpus:
        body["CpusetCpus"] = wanted
    elif wanted:
        made.left.append(f"cpuset {wanted}: this machine has {here.cpus} processors")
    if body.get("NanoCpus", 0) > here.cpus * 1_000_000_000:
        made.left.append(f"cpus {body.pop('NanoCpus') / 1e9:g}: this machine has {here.cpus} processors")
    devices = [one for one in host.get("Devices") or () if isinstance(one, Mapping)]
    there = [one for one in devices if here.device(str(one.get("PathOnHost", "")))]
    if there:
        body["Devices"] = [dict(one) for one in there]
    made.left += [f"device {one.get('PathOnHost')}: not on this machine" for one in devices if one not in there]
    if host.get("DeviceCgroupRules"):
        body["DeviceCgroupRules"] = host["DeviceCgroupRules"]
    for key, words in (
        ("DeviceRequests", "GPUs"),
        ("StorageOpt", "the size of its root"),
        ("CgroupParent", "cgroup parent"),
    ):
        if host.get(key):
            made.left.append(f"{words}: not carried")
    if str(host.get("Runtime") or "") not in _OWN_RUNTIMES:
        made.left.append(f"runtime {host['Runtime']}: this engine's default is used")


def _network(
    found: Mapping[str, Any], config: Mapping[str, Any], host: Mapping[str, Any], made: Plan, here: Here
) -> None:
    mode = str(host.get("NetworkMode") or "default")
    body = made.body["HostConfig"]
    exposed = _object(config, "ExposedPorts")
    if exposed:
        made.body["ExposedPorts"] = {str(port): {} for port in exposed}
    if mode == "none":
        body["NetworkMode"] = "none"
        return
    networks = [
        name for name in _object(_object(found, "NetworkSettings"), "Networks") if name not in ("bridge", "podman")
    ]
    if mode == "host":
        made.left.append("the host's network: the clone has a network of its own, and its ports are not published")
    elif mode.startswith("container:"):
        made.left.append("another container's network: the clone has one of its own")
    elif networks:
        made.left.append(f"network {', '.join(networks)}, its names and addresses: the clone is on the default bridge")
    if host.get("Links"):
        made.left.append("links to other containers")
    bindings = {}
    for port, places in _object(host, "PortBindings").items():
        each: Sequence[Mapping[str, Any]] = places or ({},)
        bindings[port] = [_binding(port, place, made, here) for place in each]
    if bindings:
        body["PortBindings"] = bindings
    if host.get("PublishAllPorts"):
        body["PublishAllPorts"] = True


def _binding(port: str, place: Mapping[str, Any], made: Plan, here: Here) -> dict[str, str]:
    wanted = str(place.get("HostPort") or "")
    protocol = port.partition("/")[2] or "tcp"
    if wanted.isdecimal() and not here.free(int(wanted), protocol):
        made.left.append(f"port {wanted} for {port} is taken here: the clone has another one")
        wanted = ""
    # What was open to the world there need not be here.
    return {"HostIp": "127.0.0.1", "HostPort": wanted if wanted.isdecimal() else ""}


def _isolation(host: Mapping[str, Any], made: Plan) -> None:
    body = made.body["HostConfig"]
    options = _texts(host.get("SecurityOpt"))
    kept = [one for one in options if not one.startswith(("label", "apparmor"))]
    if kept:
        body["SecurityOpt"] = kept
    made.left += [f"security option {one}" for one in options if one not in kept and one != "label=disable"]
    for key, words in (("PidMode", "process"), ("IpcMode", "IPC"), ("UTSMode", "host name"), ("UsernsMode", "user")):
        value = str(host.get(key) or "")
        if value == "host" or value.startswith("container:"):
            made.left.append(f"the {words} namespace of {value.replace(':', ' ')}: the clone has its own")
        elif key == "IpcMode" and value in ("none", "shareable"):
            body[key] = value
    if str(host.get("CgroupnsMode") or "") == "host":
        body["CgroupnsMode"] = "host"


def _mounts(found: Mapping[str, Any], kinds: Mapping[str, str], made: Plan, *, wanted: bool) -> None:
    volumes: dict[str, dict[str, Any]] = {}
    tmpfs: list[dict[str, Any]] = []
    taken: list[str] = []
    points = [one for one in found.get("Mounts") or () if isinstance(one, Mapping) and one.get("Destination")]
    for point in sorted(points, key=lambda one: str(one["Destination"])):
        kind, source, path = str(point.get("Type")), str(point.get("Source") or ""), str(point["Destination"])
        if kind == "tmpfs":
            if path not in made.body["HostConfig"].get("Tmpfs", {}):
                tmpfs.append({"Type": "tmpfs", "Target": path})
            continue
        shown = f"{kind} {point.get('Name') or source} at {path}"
        file = kind == "bind" and kinds.get(source, "d") == "f"
        if kind == "bind" and kinds.get(source) == "o":
            made.left.append(f"{shown}: a socket or device of the other machine")
        elif not wanted:
            made.left.append(f"{shown} (--mounts copies it)")
        else:
            if not file:
                volumes[path] = {}
            if not any(path.startswith(f"{above}/") for above in taken):
                made.copies.append((path, not file))
            if not file:
                taken.append(path)
            if point.get("RW") is False and not file:
                made.left.append(f"{path} was read-only there: the copy can be written to")
    if volumes:
        made.body["Volumes"] = volumes
    if tmpfs:
        made.body["HostConfig"]["Mounts"] = tmpfs


def _life(host: Mapping[str, Any], made: Plan) -> None:
    body = made.body["HostConfig"]
    policy = str(_object(host, "RestartPolicy").get("Name") or "no")
    if policy != "no":
        made.left.append(f"restart policy {policy}: the clone ends when it ends")
    log = _object(host, "LogConfig")
    kind = str(log.get("Type") or "json-file")
    if kind in ("json-file", "local", "none"):
        body["LogConfig"] = {"Type": kind, "Config": dict(_object(log, "Config"))} if kind != "none" else {"Type": kind}
    elif kind not in ("journald", "k8s-file"):  # Podman's usual ones
        made.left.append(f"log driver {kind}: the clone keeps its log here")
