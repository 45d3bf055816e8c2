"""`workbench`: finds the verb, opens the engine, prints errors as people need them. Imports a verb's module when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.runtime.bootstrap import without_inspect

with without_inspect():
    from engine.base import late_dataclasses

    late_dataclasses.install()
    from engine.cli import refused
    from engine.cli.app_flags import APP_FLAGS
    from engine.cli.flags import BadFlag, Flag, Parsed, UsageError, help_text, parse
from engine.errors import BuildFailed, Cancelled, DockerfileError, EngineError, StartFailed, from_os_error
from engine.opening import data_root

VERSION = "0.1.0"

# verb -> (module, one line for the overview)
VERBS: dict[str, tuple[str, str]] = {
    "demo": ("project", "Make a small sample project, build it, run it, open the app on it"),
    "up": ("project_up", "Build, run, watch and rebuild without the app"),
    "down": ("compose", "Stop and remove a project's containers and networks"),
    "config": ("compose", "Print a project as it is understood"),
    "compose": ("compose", "Docker's verbs by project and service: up, down, ps, logs, run, exec, …"),
    "generations": ("generations", "List and compare the generations of a project's service"),
    "rollback": ("generations", "Run an earlier generation of a service again"),
    "bisect": ("generations", "Find the first bad generation of a service"),
    "drift": ("generations", "Show what differs between a service's container and its image"),
    "build": ("build", "Build an image from a Dockerfile"),
    "builder": ("builds", "Manage builds: build, du, imagetools, prune"),
    "why": ("builds", "Say which steps, stages, images and containers a change of a file would invalidate"),
    "builds": ("builds", "List, show and compare the builds that were done here"),
    "run": ("run", "Create and run a new container from an image"),
    "create": ("run", "Create a new container, and do not start it"),
    "exec": ("run", "Execute a command in a running container"),
    "ps": ("containers", "List containers"),
    "logs": ("logs", "Fetch the logs of a container"),
    "events": ("logs", "Get real time events from the engine"),
    "start": ("life", "Start one or more stopped containers"),
    "stop": ("life", "Stop one or more running containers"),
    "restart": ("life", "Restart one or more containers"),
    "kill": ("life", "Kill one or more running containers"),
    "pause": ("life", "Pause all processes within one or more containers"),
    "unpause": ("life", "Unpause all processes within one or more containers"),
    "attach": ("life", "Attach this terminal to a running container"),
    "rename": ("life", "Rename a container"),
    "wait": ("life", "Block until one or more containers stop, then print their exit codes"),
    "stats": ("usage", "Display a live stream of container(s) resource usage statistics"),
    "top": ("usage", "Display the running processes of a container"),
    "update": ("usage", "Update configuration of one or more containers"),
    "rm": ("containers", "Remove one or more containers"),
    "images": ("images", "List images"),
    "history": ("images", "Show the history of an image"),
    "layers": ("layers", "List an image's layers: step, line, size, cached or built and why, waste"),
    "files": ("layers", "List, read, compare and save files of images and layers, and say which step made them"),
    "pull": ("images", "Download an image from a registry"),
    "push": ("push", "Upload an image to a registry"),
    "registry": ("registry", "Serve the local store as an OCI registry"),
    "manifest": ("manifest", "Manage manifests in registries: annotate, create, inspect, push, rm"),
    "referrers": ("manifest", "List what belongs to an image in its registry: signatures, SBOMs, …"),
    "clone": ("clone", "Bring a container of another host here, with its image, changed files, settings and limits"),
    "verify": ("registry", "Show that an image is the same here and on another host"),
    "search": ("search", "Search a registry for images"),
    "login": ("login", "Authenticate to a registry"),
    "logout": ("login", "Log out from a registry"),
    "save": ("archives", "Save one or more images to a tar archive"),
    "load": ("archives", "Load images from a tar archive or STDIN"),
    "import": ("archives", "Import the contents from a tarball to create a filesystem image"),
    "tag": ("images", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "rmi": ("images", "Remove one or more images"),
    "cp": ("copy", "Copy files/folders between a container and the local filesystem"),
    "diff": ("copy", "Inspect changes to files or directories on a container's filesystem"),
    "commit": ("copy", "Create a new image from a container's changes"),
    "export": ("copy", "Export a container's filesystem as a tar archive"),
    "network": ("networks", "Manage networks: create, connect, disconnect, inspect, ls, prune, rm"),
    "port": ("networks", "List port mappings or a specific mapping for the container"),
    "volume": ("volumes", "Manage volumes: create, inspect, ls, prune, rm"),
    "container": ("upkeep", "Manage containers: ls, inspect, prune, and every verb that takes one"),
    "image": ("upkeep", "Manage images: build, history, import, inspect, load, ls, prune, pull, push, rm, save, tag"),
    "system": ("upkeep", "Manage the engine: df, events, info, prune"),
    "context": ("contexts", "Show Docker's contexts, which --host takes: inspect, ls, show"),
    "inspect": ("inspect", "Return low-level information on containers, images, networks and volumes"),
    "check": ("system", "Verify the store and name what is damaged"),
    "info": ("system", "Display what this engine and this host can do"),
    "serve": ("serve", "Serve the Docker Engine API on a socket"),
    "completion": ("completion", "Print the completion of a shell: bash, zsh, fish"),
    "version": ("system", "Show the version"),
}

_ANYBODY = ("version", "completion", "context")  # verbs that need no engine

GLOBAL = [
    Flag("root", "Data root (default: /var/lib/workbench, or $WORKBENCH_ROOT)", kind="str", metavar="DIR"),
    Flag(
        "host",
        "Another engine: unix://, tcp://, ssh://, a Docker context, or docker ($WORKBENCH_HOST)",
        "H",
        kind="str",
        metavar="HOST",
    ),
    Flag("tls", "tcp:// with TLS, whoever the server is"),
    Flag("tlsverify", "tcp:// with TLS, and the server's certificate verified"),
    Flag("tlscacert", "The CA that signed the server's certificate", kind="str", metavar="FILE"),
    Flag("tlscert", "This client's certificate", kind="str", metavar="FILE"),
    Flag("tlskey", "This client's key", kind="str", metavar="FILE"),
    *APP_FLAGS,
    Flag("help", "Print this help", "h"),
    Flag("version", "Print the version", "v"),
]


def overview() -> str:
    width = max(map(len, VERBS))
    verbs = "\n".join(f"  {name:<{width}}   {text}" for name, (_, text) in VERBS.items())
    return (
        help_text(
            "[OPTIONS] [PATH | COMMAND]",
            "A container workbench: saving a file rebuilds the image and replaces the container.",
            GLOBAL,
        )
        + f"\n\nCommands:\n{verbs}\n\n`workbench [PATH]` opens the app on the project in PATH (default: here).\n"
        "`workbench COMMAND --help` tells more."
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = list(sys.argv[1:] if argv is None else argv)
    before = dict(
        os.environ
    )  # --host is told to the processes that a command starts, and to no later command of this one
    try:
        return _dispatch(args)
    except BuildFailed as error:
        return _fail(error, 1)
    except StartFailed as error:
        return _fail(error, error.exit_code)
    except Cancelled:
        return 130
    except (UsageError, BadFlag) as error:
        return _fail(error, error.exit_status)
    except EngineError as error:
        # Docker's `run` keeps 125 for itself, so that 1 to 124 are the container's own.
        return _fail(error, 125 if _runs(args) else 1)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader (head, less) went away: no more output, no message (and none from the interpreter's own flush).
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    finally:
        for name in [name for name in os.environ if name.startswith(("WORKBENCH_HOST", "WORKBENCH_TLS"))]:
            if name not in before:
                del os.environ[name]
            else:
                os.environ[name] = before[name]


def _runs(args: list[str]) -> bool:
    try:
        words = parse(args, GLOBAL, "", stop_at_argument=True).args
    except EngineError:
        return False
    return words[:1] == ["run"] or words[:2] == ["container", "run"]


def _dispatch(args: list[str]) -> int:
    parsed = parse(args, GLOBAL, "", stop_at_argument=True)
    if parsed.on("version"):
        print(f"container-workbench {VERSION}")
        return 0
    if parsed.on("help") or parsed.args == ["help"]:
        print(overview())
        return 0
    if parsed.args[:1] == ["help"] and (parsed.args[1] in VERBS or parsed.args[1] in refused.SYNONYMS):
        parsed.args = [*parsed.args[1:], "--help"]
    if parsed.args[:1] == ["__complete"]:  # the shells' functions ask at each key
        from engine.cli.completion import complete

        print("\n".join(complete(data_root(parsed.text("root")), parsed.args[1:])))
        return 0
    root, own = _root(parsed)
    verb = parsed.args[0] if parsed.args else "."
    verb = refused.SYNONYMS.get(verb, verb)
    if verb in VERBS:
        if wrong := next((flag.name for flag in APP_FLAGS if parsed.given(flag.name)), ""):
            raise _NoSuchCommand(
                f"--{wrong} is about the app, not about {verb}", hint="`workbench [PATH]` opens the app"
            )
        import importlib

        if own and verb not in _ANYBODY and parsed.args[1:2] not in (["--help"], ["-h"]):
            _as_user(root)

        with without_inspect():  # which asyncio names, and does not use for what commands do
            module = importlib.import_module(f"engine.cli.{VERBS[verb][0]}")
        command: Callable[[Path, list[str]], int] = getattr(module, f"cmd_{verb}")
        return _in(root, lambda: command(root, parsed.args[1:]))
    if not os.path.isdir(verb):
        refused.verb(verb)
        from difflib import get_close_matches

        near = get_close_matches(verb, VERBS, 1)
        hint = f"did you mean `workbench {near[0]}`?" if near else "`workbench --help` lists the commands"
        raise _NoSuchCommand(f"{verb!r} is neither a command nor a folder", hint=hint)
    more = parse(parsed.args[1:], APP_FLAGS, "")  # behind the path too
    if more.args:
        raise _NoSuchCommand(f"one folder at a time, not also {more.args[0]!r}", hint="`workbench [PATH]` opens one")
    parsed.values |= more.values
    if own:
        _as_user(root)
    from engine.cli.app import run_app

    return _in(root, lambda: run_app(root, Path(verb), parsed))


def _root(parsed: Parsed) -> tuple[Path, bool]:
    """The data root, and whether the engine is this machine's own. With `--host` it is a folder for what this side remembers
    about the other engine: projects' generations, their locks."""
    if not (parsed.text("host") or os.environ.get("WORKBENCH_HOST")):
        return data_root(parsed.text("root")), True
    from engine.remote import hosts

    tls = "verify" if parsed.on("tlsverify") else "any" if parsed.on("tls") else ""
    files = {
        name: parsed.text(f"tls{flag}") for name, flag in (("ca", "cacert"), ("certificate", "cert"), ("key", "key"))
    }
    if any(files.values()) and not tls:
        tls = "verify"  # who names files means them
    hosts.export(parsed.text("host"), tls=tls, **files)
    if parsed.text("root") or os.environ.get("WORKBENCH_ROOT"):
        top = data_root(parsed.text("root"))
    else:
        top = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "workbench"
    slug = hosts.resolve(os.environ["WORKBENCH_HOST"]).slug
    # The watcher of `up --detach` is given the folder itself.
    return (top if top.name == slug and top.parent.name == "hosts" else top / "hosts" / slug), False


def _in(root: Path, work: Callable[[], int]) -> int:
    try:
        return work()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise from_os_error(error, f"working in {root}") from error


def _as_user(root: Path) -> None:
    """An ordinary user's engine runs in a namespace of its own, entered now, before there is a second thread."""
    if os.geteuid() != 0:
        from engine.linux import userns
        from engine.runtime.places import relatives

        userns.enter(relatives(root))
        _say_once(root, userns.notes())


def _say_once(root: Path, notes: Sequence[str]) -> None:
    """What does not hold for this user, at first use; `info` says it again."""
    mark = root / ".said"
    text = "\n".join(notes)
    try:
        if not notes or (mark.exists() and mark.read_text() == text):
            return
        root.mkdir(mode=0o711, parents=True, exist_ok=True)
        mark.write_text(text)
    except OSError:
        pass
    for note in notes:
        print(f"workbench: note: {note}", file=sys.stderr)


class _NoSuchCommand(EngineError):
    code = "usage"


def _fail(error: EngineError, status: int) -> int:
    colour = sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    mark = "\x1b[31mworkbench:\x1b[0m" if colour else "workbench:"
    print(f"{mark} {error}", file=sys.stderr)
    if isinstance(error, DockerfileError | EngineError) and error.hint:
        print(f"  hint: {error.hint}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
