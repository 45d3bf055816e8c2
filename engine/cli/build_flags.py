"""The words of `build`'s flags as fields of a `BuildRequest` (docker buildx build's own syntax: comma-separated key=value fields)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, cast, get_args

from engine.cli.flags import Flag, Parsed
from engine.errors import InvalidInput, Unsupported
from engine.model import BuildOutput, BuildSecret, SshAgent

OutputType = Literal["image", "local", "tar", "oci", "docker", "registry", "cacheonly"]

FLAGS = [
    Flag("tag", "Name and optionally a tag (NAME:TAG)", "t", kind="list"),
    Flag("file", 'Name of the Dockerfile (default "PATH/Dockerfile"; "-" reads it from stdin)', "f", kind="str"),
    Flag("build-arg", "Set build-time variables", kind="list"),
    Flag("build-context", "Additional build contexts (name=path)", kind="list"),
    Flag("label", "Set metadata for the image", kind="list"),
    Flag("annotation", "Add an annotation to the image's manifest", kind="list"),
    Flag("target", "Set the target build stage to build", kind="str"),
    Flag("platform", "Set target platforms for the build", kind="list"),
    Flag("secret", "Secret to expose to the build (id=mysecret[,src=/local/secret][,env=NAME])", kind="list"),
    Flag("ssh", "SSH agent socket or keys to expose to the build (default|<id>[=<socket>|<key>[,<key>]])", kind="list"),
    Flag("output", 'Output destination (type=local,dest=path; a path alone is "local", "-" is a tar on stdout)', "o", "list"),
    Flag("load", 'Shorthand for "--output=type=docker": the image goes into the local store (the default here)'),
    Flag("push", 'Shorthand for "--output=type=registry"'),
    Flag("pull", "Always attempt to pull all referenced images"),
    Flag("no-cache", "Do not use cache when building the image"),
    Flag("no-cache-filter", "Do not cache specified stages", kind="list"),
    Flag("cache-from", "External cache sources (type=local,src=path; type=registry,ref=name; a name)", kind="list"),
    Flag("cache-to", "Cache export destinations (type=local,dest=path; type=registry,ref=name; type=inline)", kind="list"),
    Flag("network", "Set the networking mode for the RUN instructions (default, none, host)", kind="str"),
    Flag("add-host", "Add a custom host-to-IP mapping (host:ip)", kind="list"),
    Flag("ulimit", "Ulimit options (nofile=1024:2048)", kind="list"),
    Flag("shm-size", "Size of /dev/shm", kind="str", metavar="bytes"),
    Flag("memory", "Memory limit of each RUN step", "m", kind="str", metavar="bytes"),
    Flag("allow-metadata", "RUN steps may reach the cloud's metadata addresses (169.254.169.254, fd00:ec2::254)"),
    Flag("allow", "Allow an extra privileged entitlement (network.host, security.insecure)", kind="list"),
    Flag("attest", "Attestation parameters; only disabled=true is possible", kind="list"),
    Flag("sbom", 'Shorthand for "--attest=type=sbom"; only false is possible', kind="str"),
    Flag("provenance", 'Shorthand for "--attest=type=provenance"; only false is possible', kind="str"),
    Flag("progress", "Set type of progress output (auto, plain, tty, quiet, rawjson, none)", kind="str"),
    Flag("quiet", "Print the image ID on success, nothing else", "q"),
    Flag("iidfile", "Write the image ID to the file", kind="str"),
    Flag("metadata-file", "Write build result metadata to a file", kind="str"),
    Flag("check", 'Shorthand for "--call=check"'),
    Flag("call", "Set method for evaluating the build (build, check, outline, targets)", kind="str"),
    Flag("explain", "Print after the build why each step ran, or that it was cached"),
    Flag("shell-on-error", "Open a shell in the failed step's file system, environment, user and directory"),
    Flag("host-ca", "RUN steps trust this host's CA bundle and use its proxies; neither enters the image or the cache key"),
]  # fmt: skip


def fields(text: str, flag: str) -> dict[str, str]:
    """`type=local,"dest=a,b"` as a mapping; a field without `=` has the value ""."""
    import csv

    try:
        (row,) = csv.reader([text])
    except (csv.Error, ValueError):
        raise InvalidInput(f"invalid argument {text!r} for --{flag}: its fields cannot be told apart") from None
    return {name.strip().lower(): value for name, _, value in (part.partition("=") for part in row)}


def pairs(items: Sequence[str], flag: str) -> dict[str, str]:
    """`name=value` words. Raises `InvalidInput` for one without a name."""
    found = {}
    for text in items:
        name, _, value = text.partition("=")
        if not name:
            raise InvalidInput(f"invalid argument {text!r} for --{flag}: write name=value")
        found[name] = value
    return found


def build_args(items: Sequence[str]) -> dict[str, str]:
    """`--build-arg NAME` alone takes the caller's own variable; one that is not set gives nothing, as in Docker."""
    found = {}
    for text in items:
        name, equals, value = text.partition("=")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def secrets(items: Sequence[str]) -> tuple[BuildSecret, ...]:
    return tuple(_secret(text) for text in items)


def _secret(text: str) -> BuildSecret:
    given = fields(text, "secret")
    unknown = given.keys() - {"type", "id", "source", "src", "env"}
    if unknown:
        raise InvalidInput(
            f"--secret {text}: unknown field {sorted(unknown)[0]!r}", hint="id, src, env and type are known"
        )
    kind, identity = given.get("type", ""), given.get("id", "")
    source, variable = given.get("source") or given.get("src") or "", given.get("env", "")
    if kind not in ("", "file", "env"):
        raise InvalidInput(f"--secret {text}: unknown type {kind!r}", hint="types are file and env")
    if kind == "env" and source:
        source, variable = "", source
    if not identity:
        raise InvalidInput(f"--secret {text}: it has no id", hint="write id=NAME,src=FILE")
    if not source and not variable:
        variable, source = (identity, "") if kind != "file" and identity in os.environ else ("", identity)
    if variable:
        if variable not in os.environ:
            raise InvalidInput(f"--secret {text}: the variable {variable} is not set")
        return BuildSecret(identity, variable=variable, value=os.environb[os.fsencode(variable)])
    path = Path(source).absolute()
    if not path.is_file():
        raise InvalidInput(f"--secret {text}: there is no file {source}")
    return BuildSecret(identity, path=path)


def ssh(items: Sequence[str]) -> tuple[SshAgent, ...]:
    return tuple(_agent(text) for text in items)


def _agent(text: str) -> SshAgent:
    identity, _, rest = text.partition("=")
    paths = [Path(part).absolute() for part in rest.split(",") if part]
    if not paths:
        found = os.environ.get("SSH_AUTH_SOCK")
        if not found:
            raise InvalidInput(
                f"--ssh {text}: no agent runs here",
                hint="start ssh-agent, or give a key: --ssh default=~/.ssh/id_ed25519",
            )
        return SshAgent(identity or "default", socket=Path(found))
    for path in paths:
        if not path.exists():
            raise InvalidInput(f"--ssh {text}: there is no {path}")
    if len(paths) == 1 and path.is_socket():
        return SshAgent(identity, socket=path)
    return SshAgent(identity, keys=tuple(paths))


def outputs(parsed: Parsed) -> tuple[BuildOutput, ...]:
    found = [_output(text) for text in parsed.items("output")]
    if parsed.on("push"):
        found.append(BuildOutput("registry", "", {"push": "true"}))
    if parsed.on("load") and not any(item.type == "image" for item in found):
        found.append(BuildOutput("image"))
    return tuple(found)


def _output(text: str) -> BuildOutput:
    if "=" not in text:
        return BuildOutput("tar", "-") if text == "-" else BuildOutput("local", os.path.abspath(text))
    given = fields(text, "output")
    kind = given.pop("type", "")
    path = given.pop("dest", "") or given.pop("destination", "")
    if kind == "docker" and not path:
        kind = "image"  # into the engine's own store, as with `docker build --load`
    if kind not in get_args(OutputType):
        raise InvalidInput(
            f"--output {text}: unknown type {kind!r}", hint=f"types are {', '.join(get_args(OutputType))}"
        )
    if kind in ("local", "tar", "oci", "docker") and not path:
        if kind == "local":
            raise InvalidInput(f"--output {text}: type=local needs dest=FOLDER")
        path = "-"
    if path != "-" and path:
        path = os.path.abspath(path)
    if kind == "local" and path == "-":
        raise InvalidInput(f"--output {text}: a folder cannot go to stdout", hint="use type=tar")
    return BuildOutput(cast(OutputType, kind), path, given)


def refuse_attestations(parsed: Parsed) -> None:
    """Attestations cannot be made here: switched off is fine, anything else is refused by name."""
    asked = [("sbom", parsed.text("sbom"))] if parsed.given("sbom") else []
    asked += [("provenance", parsed.text("provenance"))] if parsed.given("provenance") else []
    for text in parsed.items("attest"):
        given = fields(text, "attest")
        asked.append((given.get("type", text), "false" if given.get("disabled") in ("true", "1") else "true"))
    for name, value in asked:
        if value.lower() not in ("false", "0", "f"):
            raise Unsupported(
                f"{name} attestations are not made here",
                hint=f"leave it out, or say --{name}=false; other tools can attest the pushed image",
            )


def size(parsed: Parsed, name: str) -> int:
    return parsed.size(name) if parsed.given(name) else 0


def platforms(items: Sequence[str]) -> tuple[str, ...]:
    """`--platform` may be given many times and holds commas."""
    return tuple(dict.fromkeys(part.strip() for text in items for part in text.split(",") if part.strip()))
