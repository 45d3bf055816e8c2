"""Where a stage stands after a step: config, layers, variables. Changed by the loop alone, step by step."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from engine.oci.chain import chain_ids
from engine.oci.config import ImageConfig
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_SHELL = ("/bin/sh", "-c")


def env_map(entries: tuple[str, ...]) -> dict[str, str]:
    """`K=V` entries as a mapping. An entry without `=` is empty, never the engine's own variable (CVE-2026-57231)."""
    pairs = (entry.partition("=") for entry in entries)
    return {name: value for name, _, value in pairs if name}


@dataclass(slots=True)
class State:
    """`variables` are ENV and ARG together, the later one wins (what a word may name, and what RUN gets).

    `build_args` are the ARGs met so far, in order, None for one without a value.
    """

    config: ImageConfig
    layers: list[Descriptor] = field(default_factory=list)
    size: int = 0
    variables: dict[str, str] = field(default_factory=dict)
    build_args: list[tuple[str, str | None]] = field(default_factory=list)
    ran: bool = False  # a step of this line ran: what follows says "parent step ran"
    steps: list[dict[str, object]] = field(default_factory=list)
    workdir: str = "/"
    own_cmd: bool = False  # CMD came from this stage, not from the base
    bases: Mapping[str, str] = field(default_factory=dict)  # images below, by name: their ids, to say when one moved
    created: int = 0  # seconds: the newest time of what the image holds

    def begin_stage(self) -> None:
        """What a FROM does to the state it continues: PATH is there, and ENV wins over the ARGs of the stage before."""
        if not any(entry.startswith("PATH=") for entry in self.config.env):
            self.config = self.config.with_config(Env=[*self.config.env, f"PATH={DEFAULT_PATH}"])
        self.variables |= env_map(self.config.env)
        if self.config.working_dir:
            self.workdir = posixpath.normpath("/" + self.config.working_dir.lstrip("/"))

    def fork(self) -> State:
        """A stage that continues this one; triggers are not inherited."""
        return replace(
            self,
            config=self.config.with_config(OnBuild=None),
            layers=list(self.layers),
            variables=dict(self.variables),
            build_args=list(self.build_args),
            steps=list(self.steps),
            own_cmd=False,
        )

    @property
    def chain(self) -> str:
        chains = chain_ids(self.config.diff_ids)
        return chains[-1] if chains else ""

    def chain_with(self, diff_id: Digest) -> Digest:
        return chain_ids([*self.config.diff_ids, diff_id])[-1]

    def set_env(self, name: str, value: str) -> None:
        """ENV: an entry that is there keeps its place."""
        entries = list(self.config.env)
        for index, entry in enumerate(entries):
            if entry.partition("=")[0] == name:
                entries[index] = f"{name}={value}"
                break
        else:
            entries.append(f"{name}={value}")
        self.variables[name] = value
        self.config = self.config.with_config(Env=entries)
