"""`context ls | show | inspect`: Docker's contexts, which `--host NAME` takes. The docker command line makes them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from engine.cli.common import read
from engine.cli.flags import Flag
from engine.cli.nouns import Verb, dispatch, listing
from engine.cli.tables import documents
from engine.errors import EngineError
from engine.remote import hosts


def cmd_context(root: Path, args: list[str]) -> int:
    verbs: dict[str, Verb] = {"inspect": _inspect, "ls": _list, "show": _show}
    return dispatch("context", verbs, root, args, "Docker's contexts")


def _current() -> str:
    """The context that this command line's engine is; "" for the engine in this process, or an address."""
    host = os.environ.get("WORKBENCH_HOST", "")
    return hosts.resolve(host).context or ("default" if host == "docker" else "") if host else ""


def _rows() -> list[dict[str, object]]:
    now, rows = _current(), []
    for name in sorted(["default", *hosts.contexts()]):
        document, error = hosts.context_document(name), ""
        try:
            hosts.resolve(name)
        except EngineError as wrong:
            error = wrong.message
        host = (document.get("Endpoints") or {}).get("docker", {}).get("Host", "")
        text = str((document.get("Metadata") or {}).get("Description") or "")
        rows.append({"Name": name, "Current": name == now, "Description": text, "DockerEndpoint": host, "Error": error})
    return rows


def _list(root: Path, args: list[str]) -> int:
    flags = [
        Flag("format", "Format output: json, or a template of {{.Field}}", kind="str"),
        Flag("quiet", "Only show context names", "q"),
    ]
    parsed = read(args, "context ls [OPTIONS]", "List contexts", flags, maximum=0)
    if parsed is None:
        return 0
    rows = _rows()
    columns = {"NAME": "Name", "DESCRIPTION": "Description", "DOCKER ENDPOINT": "DockerEndpoint", "ERROR": "Error"}
    if not (parsed.given("format") or parsed.on("quiet")):
        rows = [{**row, "Name": f"{row['Name']} *" if row["Current"] else row["Name"]} for row in rows]
    return listing(parsed, rows, columns, "Name")


def _show(root: Path, args: list[str]) -> int:
    if read(args, "context show", "Print the name of the current context", [], maximum=0) is not None:
        print(_current())
    return 0


def _inspect(root: Path, args: list[str]) -> int:
    flags = [Flag("format", "Format output: json, or a template of {{.Field}}", "f", kind="str")]
    usage = "context inspect [OPTIONS] [CONTEXT] [CONTEXT...]"
    parsed = read(args, usage, "Display detailed information on one or more contexts", flags)
    if parsed is None:
        return 0
    found: list[dict[str, Any]] = []
    for name in parsed.args or [_current() or "default"]:
        hosts.resolve(name)  # says when there is none
        found.append(hosts.context_document(name))
    if parsed.given("format"):
        print(documents(parsed.text("format"), found))
    else:
        print(json.dumps(found, indent=4, ensure_ascii=False))
    return 0
