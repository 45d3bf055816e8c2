"""A project as the user already has it: services from a compose file, or one from a bare Dockerfile."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from engine.errors import NotFound
from engine.model import BuildRequest, BuildSecret, ContainerSpec, EndpointSettings, Mount, NetworkSpec, SshAgent

COMPOSE_VERSION = "2.40.0"  # of the compose whose labels these are: tools read them by it


@dataclass(frozen=True, slots=True)
class BuildSpec:
    """How a service's image is built; the fields are those of `engine.model.BuildRequest`."""

    context: Path
    dockerfile: Path
    args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    no_cache: bool = False
    pull: bool = False
    network: str = ""
    add_hosts: tuple[str, ...] = ()
    shm_size: int = 0
    contexts: Mapping[str, str] = field(default_factory=dict)  # "service:NAME" is that service's image
    tags: tuple[str, ...] = ()  # beside the service's own image name
    ulimits: tuple[str, ...] = ()
    dockerfile_text: str | None = None  # `dockerfile_inline`
    secrets: tuple[BuildSecret, ...] = ()
    ssh: tuple[SshAgent, ...] = ()
    allow: tuple[str, ...] = ()  # `entitlements`
    platforms: tuple[str, ...] = ()
    cache_from: tuple[str, ...] = ()
    cache_to: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Hook:
    """A command run inside a service's container (compose-spec: `post_start`, `pre_stop`, `exec` of a watch rule)."""

    command: tuple[str, ...]
    user: str = ""
    privileged: bool = False
    working_dir: str = ""
    environment: tuple[str, ...] = ()  # "K=V"


WatchAction = Literal["rebuild", "sync", "restart", "sync+restart", "sync+exec"]


@dataclass(frozen=True, slots=True)
class WatchRule:
    """One rule of `develop.watch`. `path` is absolute, a file or a folder; patterns are .dockerignore's, relative to it."""

    path: Path
    action: WatchAction
    target: str = ""  # where a sync puts it, absolute in the container
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()  # none: everything below `path`
    initial_sync: bool = False
    exec: Hook | None = None  # of sync+exec


@dataclass(frozen=True, slots=True)
class GivenFile:
    """A secret or config of the project that is no bind of a host's file: its content is kept by the engine, and mounted
    read-only with the owner and mode asked for."""

    target: str
    content: bytes = field(repr=False)
    uid: int = 0
    gid: int = 0
    mode: int = 0o444


@dataclass(frozen=True, slots=True)
class Service:
    """`image` is what runs: the tag that `build` makes, or a name to pull. `spec` says how, but for the image, the name and
    the networks, which the project gives."""

    name: str
    image: str
    build: BuildSpec | None = None
    spec: ContainerSpec = field(default_factory=lambda: ContainerSpec(image=""))
    container_name: str = ""
    networks: Mapping[str, EndpointSettings] = field(default_factory=dict)  # by name here; none: the project's own
    network_mode: str = ""  # "", "host", "none", "bridge", "service:NAME", "container:NAME"
    depends_on: Mapping[str, str] = field(default_factory=dict)  # service: the condition to wait for
    optional: frozenset[str] = frozenset()  # of depends_on, `required: false`: a failure of these is no obstacle
    restart_with: frozenset[str] = frozenset()  # of depends_on, `restart: true`: restarted when these are replaced
    watch: tuple[WatchRule, ...] = ()  # develop.watch; none: as the Dockerfile lets us infer
    post_start: tuple[Hook, ...] = ()
    pre_stop: tuple[Hook, ...] = ()
    scale: int = 1  # how many containers; 0: only the image is made
    platform: str = ""  # "linux/amd64"; "" is this machine's
    pull_policy: str = ""  # "" (missing), "always", "never", "build", "daily", "weekly", "every_12h", …
    attach: bool = True  # whether `up` shows its log
    files: tuple[GivenFile, ...] = ()
    contents: Mapping[str, str] = field(default_factory=dict)  # bound secrets and configs: path on the host → digest
    volumes_from: tuple[str, ...] = ()  # "SERVICE[:ro]"; those of containers stand in the spec
    links: tuple[str, ...] = ()  # "SERVICE[:alias]"
    external_links: tuple[str, ...] = ()  # "CONTAINER[:alias]"
    profiles: frozenset[str] = frozenset()
    needs_images: frozenset[str] = (
        frozenset()
    )  # services whose image this one's build reads (`service:`, FROM, COPY --from)


@dataclass(frozen=True, slots=True)
class ProjectNetwork:
    """A network of the project; with `external` one that must be there already."""

    spec: NetworkSpec
    external: bool = False


@dataclass(frozen=True, slots=True)
class ProjectVolume:
    """A named volume of the project, by the engine's name; with `external` one that must be there already."""

    name: str
    driver: str = ""
    options: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    external: bool = False


@dataclass(frozen=True, slots=True)
class Project:
    """`notes` name what the file says that is not supported yet, each with file and line. Services in start order."""

    name: str
    path: Path
    file: Path
    services: tuple[Service, ...]
    notes: tuple[str, ...] = ()
    env_files: tuple[Path, ...] = ()  # what else was read: .env, env files, included, extended and override files
    networks: Mapping[str, ProjectNetwork] = field(
        default_factory=dict
    )  # by name in the file; empty: the default bridge
    volumes: Mapping[str, ProjectVolume] = field(default_factory=dict)  # by name in the file, those that services use
    files: tuple[Path, ...] = ()  # the compose files themselves, in order; none: a bare Dockerfile
    document: Mapping[str, Any] = field(default_factory=dict, repr=False)  # the compose files as one, for `config`
    others: tuple[Service, ...] = ()  # services that were not chosen this time

    def service(self, name: str) -> Service:
        """Raises `NotFound`."""
        for each in (*self.services, *self.others):
            if each.name == name:
                return each
        near = get_close_matches(name, [each.name for each in self.services], 1)
        hint = f"did you mean {near[0]!r}?" if near else f"services: {', '.join(s.name for s in self.services)}"
        raise NotFound(f"no such service: {name}", hint=hint)


def build_request(build: BuildSpec, image: str, images: Mapping[str, str] | None = None) -> BuildRequest:
    """`images`: what the images of services are called, for contexts that are `service:NAME`."""
    contexts = {}
    for name, where in build.contexts.items():
        service = where.removeprefix("service:")
        contexts[name] = where if service == where else f"docker-image://{(images or {}).get(service, service)}"
    return BuildRequest(
        build.context,
        build.dockerfile if build.dockerfile_text is None else None,
        (image, *build.tags),
        build.target,
        build.args,
        build.labels,
        no_cache=build.no_cache,
        pull=build.pull,
        dockerfile_text=build.dockerfile_text,
        contexts=contexts,
        secrets=build.secrets,
        ssh=build.ssh,
        allow=build.allow,
        platforms=build.platforms,
        cache_from=build.cache_from,
        cache_to=build.cache_to,
        network=build.network,
        add_hosts=build.add_hosts,
        ulimits=build.ulimits,
        shm_size=build.shm_size,
    )


def service_request(project: Project, service: Service) -> BuildRequest | None:
    """How the project builds it; None: its image is pulled."""
    if service.build is None:
        return None
    images = {each.name: each.image for each in (*project.services, *project.others)}
    return build_request(service.build, service.image, images)


def container_name(project: Project, service: Service, number: int = 1) -> str:
    return service.container_name or f"{project.name}-{service.name}-{number}"


def container_spec(
    project: Project,
    service: Service,
    *,
    image: str,
    name: str,
    generation: int,
    log_path: str,
    number: int = 1,
    mounts: tuple[Mount, ...] = (),
    hashed: str = "",
) -> ContainerSpec:
    """What to run for one generation. `image` is pinned by id, so that a later tag does not change what an old container was.
    `mounts` come to those of the service: its given files. `hashed`: its `config_hash`, where that is known."""
    hashed = hashed or config_hash(service)
    labels = {
        **service.spec.labels,
        "com.docker.compose.project": project.name,
        "com.docker.compose.service": service.name,
        "com.docker.compose.container-number": str(number),
        "com.docker.compose.oneoff": "False",
        "com.docker.compose.project.working_dir": str(project.path),
        "com.docker.compose.project.config_files": ",".join(map(str, project.files or (project.file,))),
        "com.docker.compose.config-hash": hashed,
        "com.docker.compose.depends_on": ",".join(
            f"{other}:{condition}:{'true' if other in service.restart_with else 'false'}"
            for other, condition in service.depends_on.items()
        ),
        "com.docker.compose.version": COMPOSE_VERSION,
        "workbench.generation": str(generation),
        "workbench.config-hash": hashed,
    }
    own = replace(service.spec, image=image, name=name, labels=labels, log_path=log_path)
    own = replace(
        own,
        mounts=(*own.mounts, *mounts),
        pid_mode=_shared(project, own.pid_mode),
        ipc_mode=_shared(project, own.ipc_mode),
        volumes_from=(*own.volumes_from, *(_source(project, text) for text in service.volumes_from)),
        links=(*own.links, *_links(project, service)),
    )
    return replace(own, **network_fields(project, service))


def _shared(project: Project, mode: str) -> str:
    """`service:NAME` as the container that runs it."""
    if not mode.startswith("service:"):
        return mode
    return f"container:{container_name(project, project.service(mode.removeprefix('service:')))}"


def _source(project: Project, text: str) -> str:
    name, colon, mode = text.partition(":")
    return f"{container_name(project, project.service(name))}{colon}{mode}"


def _links(project: Project, service: Service) -> tuple[str, ...]:
    found = list(service.external_links)
    for text in service.links:
        name, _, alias = text.partition(":")
        found.append(f"{container_name(project, project.service(name))}:{alias or name}")
    return tuple(found)


def config_hash(service: Service) -> str:
    """Changes when the way a service is run does; not with its image, its build, or how many of it there are."""
    document = {key: value for key, value in asdict(service).items() if key not in _NOT_RUN}
    return hashlib.sha256(json.dumps(document, sort_keys=True, default=str).encode()).hexdigest()


# What says how a service is built, watched, ordered and counted, and not how one container of it runs.
_NOT_RUN = {
    "build",
    "image",
    "depends_on",
    "optional",
    "restart_with",
    "watch",
    "scale",
    "pull_policy",
    "attach",
    "profiles",
    "needs_images",
}


def network_fields(project: Project, service: Service) -> dict[str, Any]:
    """A service's part of the network: by its own name on each of its networks, so that others find it."""
    if service.network_mode:
        return {"network_mode": _shared(project, service.network_mode)}
    if not project.networks:
        return {}
    wanted = service.networks or {"default": EndpointSettings()}
    networks = {
        project.networks[name].spec.name: replace(each, aliases=tuple(dict.fromkeys((service.name, *each.aliases))))
        for name, each in wanted.items()
    }
    return {"network_mode": next(iter(networks)), "networks": networks}
