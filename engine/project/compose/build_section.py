"""`build` of a service: what the builder is asked for (compose-spec, build.md)."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from engine.errors import InvalidInput
from engine.model import BuildSecret, SshAgent
from engine.project.compose.load import is_url
from engine.project.compose.positions import Map, Place, problem
from engine.project.compose.values import entries, filled, flag, mapping, size, text, texts, ulimit
from engine.project.model import BuildSpec

Note = Callable[[str, Place], None]
# Said by its place when it is there: what the builder does not do.
LEFT_OUT = {
    "isolation": "of Windows",
    "privileged": "RUN steps are never privileged",
}
_ATTESTATIONS = ("provenance", "sbom")
_FALSE = ("false", "0", "", "none")


def read_build(name: str, value: Map, document: Map, env: Mapping[str, str], note: Note) -> BuildSpec:
    """Raises `DockerfileError`, `InvalidInput`."""
    for key, why in LEFT_OUT.items():
        if key in value:
            note(f"services.{name}.build.{key}: {why}", value.where(key))
    for key in _ATTESTATIONS:
        if text(value.get(key)).lower() not in _FALSE:
            note(f"services.{name}.build.{key}: attestations are not made here", value.where(key))
    context = str(value.get("context", "."))
    if is_url(context):
        raise InvalidInput(f"{context}: only folders of this machine can be watched and built", hint="clone it first")
    folder = Path(context).resolve()
    if not folder.is_dir():
        raise InvalidInput(f"the build context {folder} is not a folder")
    return BuildSpec(
        folder,
        folder / text(value.get("dockerfile") or "Dockerfile"),
        filled(value.get("args") or {}, env),
        text(value.get("target")),
        labels=mapping(value.get("labels") or {}),
        no_cache=flag(value.get("no_cache") or False),
        pull=flag(value.get("pull") or False),
        network=text(value.get("network")),
        add_hosts=tuple(f"{k}:{v}" for k, v in mapping(value.get("extra_hosts") or {}).items()),
        shm_size=size(value.get("shm_size") or 0),
        contexts=mapping(value.get("additional_contexts") or {}),
        tags=texts(value.get("tags") or []),
        ulimits=tuple(
            f"{u.name}={u.soft}:{u.hard}" for u in (ulimit(k, v) for k, v in (value.get("ulimits") or {}).items())
        ),
        dockerfile_text=text(value.get("dockerfile_inline")) or None,
        secrets=_secrets(name, value, document, env, note),
        ssh=_agents(value.get("ssh")),
        allow=texts(value.get("entitlements") or []),
        platforms=texts(value.get("platforms") or []),
        cache_from=texts(value.get("cache_from") or []),
        cache_to=texts(value.get("cache_to") or []),
    )


def _secrets(name: str, value: Map, document: Map, env: Mapping[str, str], note: Note) -> tuple[BuildSecret, ...]:
    found = []
    section = document.get("secrets")
    for entry, place in entries(value.get("secrets")):
        source = text(entry.get("source")) if isinstance(entry, Map) else text(entry)
        target = text(entry.get("target")) if isinstance(entry, Map) else ""
        if isinstance(entry, Map):
            for key in entry.keys() & {"uid", "gid", "mode"}:
                note(f"services.{name}.build.secrets.{source}.{key}: the RUN --mount says it", entry.where(key))
        body = section.get(source) if isinstance(section, Map) else None
        if not isinstance(body, Map):
            raise problem(place, f"build.secrets: {source!r} is not defined", "add it under secrets:")
        if body.get("external"):
            raise problem(place, f"build.secrets: {source!r} is external, and there is no store of secrets here", _OWN)
        if body.get("environment"):
            variable = text(body["environment"])
            if variable not in env:
                raise problem(place, f"build.secrets: {source!r} needs the variable {variable}, which is not set")
            found.append(BuildSecret(target or source, value=env[variable].encode()))
        else:
            found.append(BuildSecret(target or source, path=Path(text(body.get("file")))))
    return tuple(found)


_OWN = "give it `file: …` or `environment: …`"


def _agents(value: Any) -> tuple[SshAgent, ...]:
    if not value:
        return ()
    given = value if isinstance(value, Mapping) else {}
    if not isinstance(value, Mapping):
        parts = [text(one).partition("=") for one in (value if isinstance(value, list) else [value])]
        given = {identity: path for identity, _, path in parts}
    found = []
    for identity, item in given.items():
        paths = [Path(os.path.expanduser(part)) for part in text(item).split(",") if part]
        if not paths:
            socket = os.environ.get("SSH_AUTH_SOCK")
            if not socket:
                raise InvalidInput(
                    "no ssh agent runs here", hint="start ssh-agent, or name a key: `- default=~/.ssh/id`"
                )
            paths = [Path(socket)]
        for path in paths:
            if not path.exists():
                raise InvalidInput(f"ssh {identity}: there is no {path}")
        one = len(paths) == 1 and paths[0].is_socket()
        found.append(SshAgent(identity, socket=paths[0]) if one else SshAgent(identity, keys=tuple(paths)))
    return tuple(found)
