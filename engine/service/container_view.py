"""How a container looks: the summary of `ps` and the document of `inspect`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.base.clock import rfc3339
from engine.model import ContainerSummary
from engine.service.points import points_of
from engine.service.seen import discarded, inspected, published

if TYPE_CHECKING:
    from engine.model import ContainerSpec
    from engine.runtime.client import Runtime
    from engine.runtime.state import State
    from engine.service.endpoints import EndpointService


class ContainerView:
    """Of a record and its monitor's state file."""

    def __init__(
        self,
        runtime: Runtime,
        endpoints: Callable[[], EndpointService],
        networks: Callable[[], Mapping[str, str]],
        bundle: Callable[[str], Path],
        trees: Callable[[str], Sequence[Path]],
    ) -> None:
        """`networks`: their names by id; `bundle`: a container's folder, `trees` those of its image's layers."""
        self._runtime, self._endpoints, self._networks = runtime, endpoints, networks
        self._bundle, self._trees = bundle, trees

    def summary(
        self,
        container_id: str,
        record: dict[str, Any],
        state: State | None = None,
        networks: Mapping[str, str] | None = None,
    ) -> ContainerSummary:
        """`state` and `networks` where the caller knows them already."""
        spec = record["spec"]
        state = self._runtime.state(self._bundle(container_id)) if state is None else state
        return ContainerSummary(
            container_id,
            record["name"],
            spec["image"],
            record["image_id"],
            " ".join(f"'{arg}'" if " " in arg else arg for arg in record["args"]),
            state.status,
            record["created"],
            state.started,
            state.finished,
            state.exit_code,
            state.pid if state.active else 0,
            labels=spec["labels"],
            error=state.error,
            oom_killed=state.oom_killed,
            **self._seen(record, state, networks),
            health=str(state.health["status"]) if state.health else "",
            restart_count=state.restart_count,
            warnings=tuple(dict.fromkeys((*discarded(spec), *state.notes))),
            mounts=tuple(point.inspected() for point in points_of(record)),
        )

    def _seen(self, record: dict[str, Any], state: State, networks: Mapping[str, str] | None) -> dict[str, Any]:
        """A summary's fields about the network."""
        ports, shown = published(record, state), ""
        if ports:
            from engine.network.ports import displayable

            shown = displayable(ports)
        return {
            "ports": tuple(shown.split(", ")) if shown else (),
            "networks": inspected(record, state, self._networks() if networks is None else networks),
            "network_mode": record["spec"].get("network_mode", "default"),
            "published": ports,
        }

    def inspect(self, summary: ContainerSummary, spec: ContainerSpec, record: dict[str, Any]) -> dict[str, object]:
        from engine.runtime.state import UNKNOWN_CODE
        from engine.service.container_process import STOP_SIGNAL
        from engine.service.inspect_host import host_config_document
        from engine.service.inspect_network import host_network, network_settings
        from engine.service.mount_specs import mount_to_api

        state: dict[str, object] = {
            "Status": summary.status,
            "Running": summary.running,
            "Paused": summary.status == "paused",
            "Restarting": summary.status == "restarting",
            "OOMKilled": summary.oom_killed,
            "Dead": summary.status == "dead",
            "Pid": summary.pid,
            "ExitCode": UNKNOWN_CODE if summary.exit_code is None and summary.error else summary.exit_code or 0,
            "Error": summary.error,
            "StartedAt": rfc3339(summary.started) if summary.started else "0001-01-01T00:00:00Z",
            "FinishedAt": rfc3339(summary.finished) if summary.finished else "0001-01-01T00:00:00Z",
        }
        if health := self._runtime.state(self._bundle(summary.id)).health:
            state["Health"] = _health(health)
        return {
            "Id": summary.id,
            "Created": rfc3339(summary.created),
            "RestartCount": summary.restart_count,
            "ExecIDs": self._exec_ids(summary),
            "Path": record["args"][0],
            "Args": record["args"][1:],
            "State": state,
            "Image": record["image_id"],
            "Name": f"/{summary.name}",
            "LogPath": record["log_path"],
            "Driver": "overlay2",
            "MountLabel": "",
            "ProcessLabel": "",
            "AppArmorProfile": "",
            "GraphDriver": {"Name": "overlay2", "Data": self._tree(summary.id)},
            "Platform": "linux",
            "HostConfig": {
                **host_network(spec, blocked=self._endpoints().blocks(spec)),
                "Binds": [m.bind for m in spec.mounts if m.bind] or None,
                **({"Mounts": typed} if (typed := [mount_to_api(m) for m in spec.mounts if not m.bind]) else {}),
                "VolumesFrom": list(spec.volumes_from) or None,
                "VolumeDriver": spec.volume_driver,
                "AutoRemove": spec.auto_remove,
                "LogConfig": {"Type": spec.log_config.type or "json-file", "Config": dict(spec.log_config.config)},
                "RestartPolicy": {
                    "Name": spec.restart_policy.name or "no",
                    "MaximumRetryCount": spec.restart_policy.maximum_retry_count,
                },
                **host_config_document(spec, spec.runtime),
            },
            "Config": {
                "Hostname": record["hostname"],
                "Domainname": spec.domainname,
                "User": record["user"],
                "Tty": spec.tty,
                "OpenStdin": spec.open_stdin,
                "StdinOnce": spec.stdin_once,
                "AttachStdin": spec.attach_stdin,
                "AttachStdout": spec.attach_stdout,
                "AttachStderr": spec.attach_stderr,
                "Env": record["env"],
                "Cmd": record.get("cmd", spec.command if spec.command is not None else record["args"]) or None,
                "Entrypoint": record.get("entrypoint") or None,
                "Image": spec.image,
                "WorkingDir": record["cwd"],
                "Labels": dict(spec.labels),
                **({"StopSignal": record["stop_signal"]} if record["stop_signal"] != STOP_SIGNAL else {}),
                "OnBuild": None,
                **({} if spec.stop_timeout is None else {"StopTimeout": spec.stop_timeout}),
                **({"Healthcheck": record["healthcheck"]} if record.get("healthcheck") else {}),
                **({"ExposedPorts": {port: {} for port in exposed}} if (exposed := record.get("exposed")) else {}),
                "Volumes": {path: {} for path in record.get("volumes", ())} or None,
            },
            "Mounts": list(summary.mounts),
            "NetworkSettings": network_settings(summary, record.get("exposed", ())),
            **{
                f"{key}Path": str(self._bundle(summary.id) / name)
                for key, name in (("ResolvConf", "resolv.conf"), ("Hostname", "hostname"), ("Hosts", "hosts"))
            },
        }

    def _tree(self, container_id: str) -> dict[str, str]:
        """The folders that its root is made of, topmost layer first."""
        bundle = self._bundle(container_id)
        return {
            "ID": container_id,
            "LowerDir": ":".join(map(str, self._trees(container_id))),
            "MergedDir": str(bundle / "rootfs"),
            "UpperDir": str(bundle / "upper"),
            "WorkDir": str(bundle / "work"),
        }

    def _exec_ids(self, summary: ContainerSummary) -> Sequence[str] | None:
        """Of what runs in it beside its first process."""
        found = self._runtime.execs(summary.id) if summary.running else []
        return [str(one["id"]) for one in found if one["exit_code"] is None] or None


def _health(health: dict[str, Any]) -> dict[str, Any]:
    """A state file's health as Docker's State.Health."""
    return {
        "Status": health["status"],
        "FailingStreak": health["failing_streak"],
        "Log": [
            {
                "Start": rfc3339(one["start"]),
                "End": rfc3339(one["end"]),
                "ExitCode": one["exit_code"],
                "Output": one["output"],
            }
            for one in health["log"]
        ],
    }
