"""What a change of the project's own files means (pure): services that came, went, or are other ones now."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.project.model import Project, Service, config_hash


@dataclass(frozen=True, slots=True)
class Difference:
    """Names. `changed` have to be built or run anew, `noted` only differ in what counts later (a dependency, a watch rule)."""

    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    noted: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.added or self.removed or self.changed or self.noted)

    def __str__(self) -> str:
        parts = [
            f"{', '.join(names)} {word}"
            for names, word in (
                (self.added, "added"),
                (self.removed, "removed"),
                ((*self.changed, *self.noted), "changed"),
            )
            if names
        ]
        return "; ".join(parts) or "nothing that counts changed"


def compare(before: Project, now: Project) -> Difference:
    old = {service.name: service for service in before.services}
    new = {service.name: service for service in now.services}
    both = [name for name in new if name in old]
    networks = before.networks != now.networks
    changed = [
        name for name in both if _other(old[name], new[name]) or (networks and _on_other(before, now, new[name]))
    ]
    return Difference(
        tuple(name for name in new if name not in old),
        tuple(name for name in old if name not in new),
        tuple(changed),
        tuple(name for name in both if name not in changed and old[name] != new[name]),
    )


def _other(old: Service, new: Service) -> bool:
    return (
        old.build != new.build
        or old.image != new.image
        or old.scale != new.scale
        or config_hash(old) != config_hash(new)
    )


def _on_other(before: Project, now: Project, service: Service) -> bool:
    """Whether a network that it is on is another one."""
    return any(before.networks.get(name) != now.networks.get(name) for name in service.networks or ("default",))


def project_files(project: Project) -> tuple[Path, ...]:
    """What the project was read from: a change of any of them is a change of the project. The first one is a compose file, or
    the Dockerfile of a project without one."""
    own = [project.file, *project.env_files]
    if project.files:
        own.append(project.path / ".env")  # it counts from the moment it is there
        own += [file.with_name(f"{file.stem}.override{end}") for file in project.files[:1] for end in (".yaml", ".yml")]
    secrets = [Path(path) for service in project.services for path in service.contents]
    dockerfiles = [service.build.dockerfile for service in project.services if service.build]
    return tuple(dict.fromkeys([*own, *secrets, *dockerfiles]))
