"""Docker's flags and commands that cannot be done here. Each fails with the reason, instead of being unknown or ignored; a value that asks
for what is so anyway is taken. They are not in the help."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from engine.cli.flags import Flag, Parsed
from engine.errors import Unsupported


@dataclass(frozen=True, slots=True)
class Refused:
    """`holds`: the values that change nothing; for a switch "true" or "false"."""

    names: str
    why: str
    holds: tuple[str, ...] = ()
    kind: Literal["bool", "str"] = "str"


_TRUST = Refused("disable-content-trust", "images are not signed with Notary here", ("true",), "bool")
_WINDOWS = Refused("cpu-count cpu-percent io-maxbandwidth io-maxiops", "it is about containers of Windows")
_ISOLATION = Refused("isolation", "it is about containers of Windows", ("", "default"))
_PLATFORM = Refused("platform", "an image for several platforms is moved and shown whole")
_RUN = (
    _TRUST,
    _WINDOWS,
    _ISOLATION,
    Refused("kernel-memory", "kernels have had no such limit since Linux 5.4"),
    Refused("use-api-socket", "no socket of this engine is mounted by itself: -v does it", ("false",), "bool"),
)
_CLUSTER = "it is about volumes of a Swarm, which this engine is no part of"
_BY_VERB: dict[str, tuple[Refused, ...]] = {
    "run": _RUN,
    "create": _RUN,
    "build": (
        _TRUST,
        _ISOLATION,
        Refused("rm", "a RUN step leaves no container to keep", ("true",), "bool"),
        Refused("force-rm", "", ("true", "false"), "bool"),  # so it is always
        Refused("compress", "", ("true", "false"), "bool"),  # the context is read where it lies
        Refused("squash", "layers are not squashed: --output type=local has the files", ("false",), "bool"),
        Refused(
            "cgroup-parent cpu-period cpu-quota cpu-shares cpuset-cpus cpuset-mems memory-swap",
            "RUN steps are limited by --memory and --ulimit alone",
        ),
        Refused("security-opt", "--allow security.insecure is what a step may have"),
    ),
    "pull": (_TRUST,),
    "push": (_TRUST, _PLATFORM),
    "images": (Refused("tree", "`workbench layers IMAGE` shows what an image is made of", ("false",), "bool"),),
    "rmi": (_PLATFORM, Refused("no-prune", "", ("true", "false"), "bool")),  # images have no parents
    "history": (_PLATFORM,),
    "load": (_PLATFORM,),
    "save": (_PLATFORM,),
    "inspect": (_PLATFORM,),
    "start": (Refused("checkpoint checkpoint-dir", "checkpoints of processes (CRIU) are not made here"),),
    "network create": (
        Refused("config-from", "networks are not made from templates"),
        Refused("config-only ingress", "it is about a Swarm", ("false",), "bool"),
        Refused("ipam-driver", "addresses are given by the engine itself", ("", "default")),
        Refused("ipam-opt", "addresses are given by the engine itself"),
        Refused("ipv4", "a network here always has IPv4", ("true",), "bool"),
        Refused("scope", "a network is this host's alone", ("", "local")),
    ),
    "volume create": (
        Refused(
            "availability group limit-bytes required-bytes scope secret sharing topology-preferred topology-required type",
            _CLUSTER,
        ),
    ),
    "volume ls": (Refused("cluster", _CLUSTER, ("false",), "bool"),),
}
_COMMANDS = {
    "volume update": _CLUSTER,
    **dict.fromkeys(
        ("context create", "context export", "context import", "context rm", "context update", "context use"),
        "Docker's contexts are read and not written: the docker command line makes them, --host NAME or WORKBENCH_HOST uses one",
    ),
}

_VERBS = {
    "checkpoint": "checkpoints of processes (CRIU) are not made here",
    "plugin": "this engine has no plugins",
    "trust": "images are not signed with Notary here",
    **dict.fromkeys(("node", "secret", "service", "stack", "swarm"), "this engine is no part of a Swarm"),
}
SYNONYMS = {"buildx": "builder"}  # `buildx build`, `du`, `prune`


def flags(usage: str, known: Sequence[Flag]) -> list[Flag]:
    """Those of a verb, where it has not learnt them; `usage` begins with its words."""
    have = {flag.name for flag in known}
    shorts = {"cpu-shares": "c"}
    return [
        Flag(name, "", shorts.get(name, ""), each.kind)
        for each in _of(usage)
        for name in each.names.split()
        if name not in have
    ]


def check(usage: str, parsed: Parsed) -> None:
    """Raises `Unsupported`."""
    for each in _of(usage):
        for name in each.names.split():
            value = parsed.values.get(name)
            shown = str(value).lower() if isinstance(value, bool) else str(value)
            if value is not None and each.why and shown not in each.holds:
                raise Unsupported(f"--{name} is not possible here: {each.why}")


def verb(name: str) -> None:
    """Raises `Unsupported` for a verb of Docker's that is none here."""
    if why := _VERBS.get(name):
        raise Unsupported(f"{name} is not possible here: {why}")


def command(noun: str, verb: str) -> None:
    """Raises `Unsupported` for a command of Docker's that is none here."""
    if why := _COMMANDS.get(f"{noun} {verb}"):
        raise Unsupported(f"{noun} {verb} is not possible here: {why}")


def _of(usage: str) -> tuple[Refused, ...]:
    words = usage.split()
    return _BY_VERB.get(" ".join(words[:2])) or _BY_VERB.get(words[0]) or ()
