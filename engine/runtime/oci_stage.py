"""What is done before an OCI runtime's `create`, in the child that then becomes it: the root is mounted, the sources of
mounts are opened and put where the runtime finds them, the user is looked up, the network's namespace is made.

All of it in a mount namespace of this child's own, which ends with the runtime's command: the container keeps what it
uses, nothing is seen on the host, nothing is left. A source is opened once, as for the native launcher, and what the
runtime binds is a mount of that very object at a name that nobody else can change.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
from dataclasses import dataclass, field
from typing import Any, NoReturn

from engine.linux import capability, libc, mount, namespace
from engine.linux.openat2 import open_in_root
from engine.runtime import binds, init, init_namespaces, oci_command, oci_config, tiny_init
from engine.runtime.init_userns import Remap
from engine.runtime.protocol import line
from engine.runtime.rootfs import KERNEL_DIRS, Rootfs, mount_root
from engine.runtime.rootfs_devices import SetupError
from engine.runtime.users import identify

_HANDLE = os.O_PATH | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


@dataclass
class Sources:
    """A small memory file system, mounted in this child alone, with a mount point for each source."""

    folder: str
    found: dict[str, str] = field(default_factory=dict)  # destination in the container: path here

    def open(self, *, reachable: bool) -> None:
        """`reachable`: also for the root of a user namespace, who is an ordinary user of the host."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        mode = "mode=711" if reachable else "mode=700"
        mount.mount("tmpfs", self.folder, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, mode)

    def add(self, destination: str, tree: int) -> str:
        """Mounts a detached tree; closes it."""
        path = os.path.join(self.folder, str(len(self.found)))
        if stat.S_ISDIR(os.fstat(tree).st_mode):
            os.mkdir(path, 0o700)
        else:
            os.close(os.open(path, _NEW_FILE, 0o600))
        where = os.open(path, _HANDLE | os.O_NOFOLLOW)
        mount.attach_tree(tree, where)
        os.close(where)
        os.close(tree)
        self.found[destination] = path
        return path


def run(
    spec: dict[str, Any],
    bundle: str,
    command: oci_command.Command,
    argv: list[str],
    log: oci_command.Log,
    channel: socket.socket,
    stdio: tuple[int, int, int],
) -> NoReturn:
    """Never returns: becomes the runtime's `create`, or reports in `log` and over `channel`."""
    stage = "process"
    try:
        init.default_signals()
        libc.prctl(libc.PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        os.umask(0o022)
        stage = "namespaces"
        own = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        remap = init_namespaces.user_namespace(spec)
        spaces = _make_spaces(spec, channel, remap)
        stage = "mounts"
        shm = init_namespaces.take_shm(spec) if spec["workbench"].get("share_shm") else -1
        namespace.unshare(namespace.NEWNS)
        held = binds.hold_sources(spec)
        mount.make_slave()
        oci_command.hide_unified(command.layout)
        stage = "root file system"
        root = mount_root(spec, bundle, remap)
        for name in KERNEL_DIRS:
            os.close(Rootfs(root).ordinary(name))
        if not spec["workbench"]["clean_stubs"]:
            Rootfs(root).marks()
        stage = "mounts"
        where = os.path.join(bundle, spec["root"]["path"])
        trees = _collect(spec, held, remap, where)
        if remap is not None:
            remap.become_host()
        if shm >= 0:
            trees["/dev/shm"] = shm
        sources = Sources(os.path.join(bundle, "oci", "sources"))
        if remap is not None:
            trees[""] = mount.clone_tree(root)
            sources.folder = open_place()
        sources.open(reachable=remap is not None)
        for destination, tree in trees.items():
            sources.add(destination, tree)
        stage = "user"
        identity = identify(root, spec["workbench"]["user"], spec["workbench"].get("group_add", ()))
        extra, args = _small_init(spec, root, sources) if spec["workbench"].get("init") else ([], [])
        os.close(root)
        stage = "network"
        paths = _await_spaces(channel, spaces)
        namespace.setns(own, namespace.NEWNET)
        stage = "configuration"
        document = oci_config.document(
            spec,
            identity,
            permitted=capability.permitted(),
            cgroup_root=str(command.layout.roots[""]).removeprefix("/sys/fs/cgroup")
            if command.layout.delegated
            else "",
            root=sources.found.get("", where),
            sources=sources.found,
            namespaces=paths,
            extra=extra,
            args=args,
        )
        if shm >= 0:
            document["mounts"].append(
                {
                    "destination": "/dev/shm",
                    "type": "bind",
                    "source": sources.found["/dev/shm"],
                    "options": ["bind", "rw"],
                }
            )
        write(os.path.join(bundle, "oci", "config.json"), document)
        stage = f"starting {command.name} ({command.path})"
        channel.send(b'{"ready":1}')
        oci_command.execute(argv, log, stdio)
    except BaseException as error:
        try:
            log.report(stage, error)
            init.report(channel.fileno(), stage, error)
        except OSError:
            pass
    finally:
        os._exit(127)


def open_place() -> str:
    """A folder that every user may pass, and which this child may cover: it is the only one who sees what is mounted there.
    The bundle's own is root's alone. Raises SetupError."""
    for path in ("/mnt", "/media", "/srv", "/opt"):  # hier(7)
        try:
            status = os.lstat(path)
        except OSError:
            continue
        if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o001:
            return path
    raise SetupError("user namespaces with an OCI runtime need one of /mnt, /media, /srv, /opt as a folder")


def show_root(folder: str) -> None:
    """For `exec`, in a mount namespace of its own: the root's path leads somewhere, which is where runc's child begins."""
    with open(os.path.join(folder, "config.json"), "rb") as file:
        path = str(json.loads(file.read())["root"]["path"])
    if not os.path.isdir(path):  # it was in `open_place`
        mount.mount("tmpfs", os.path.dirname(path), "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=711")
        os.mkdir(path, 0o711)


def write(path: str, document: dict[str, Any]) -> None:
    """A file that only root reads, made anew."""
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "wb") as file:
        file.write(json.dumps(document).encode())
    os.rename(temporary, path)


def _make_spaces(spec: dict[str, Any], channel: socket.socket, remap: Remap | None) -> dict[str, int]:
    """The namespaces that the runtime is to join: the network's, which the monitor sets up meanwhile, the user namespace,
    and those of other containers, which are verified here."""
    spaces = {kind: init_namespaces.open_namespace(spec, kind) for kind in spec["workbench"].get("join", {})}
    own = init_namespaces.new_kinds(spec)
    if remap is not None:
        spaces.setdefault("user", remap.fd)
    if "network" in own:
        made = remap.spaces if remap is not None else {}
        if "network" in made:
            namespace.setns(made["network"], namespace.NEWNET)
        else:
            namespace.unshare(namespace.NEWNET)
        init_namespaces.open_network(spec, channel)
        spaces["network"] = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    return spaces


def _await_spaces(channel: socket.socket, spaces: dict[str, int]) -> dict[str, str]:
    """Gives them to the monitor, which keeps them open until the runtime has joined them; returns what they are called."""
    socket.send_fds(channel, [line({"spaces": list(spaces)})], list(spaces.values()))
    raw = channel.recv(1 << 16)
    if not raw:
        raise SetupError("the monitor went away")
    return {str(kind): str(path) for kind, path in json.loads(raw)["paths"].items()}


def _collect(spec: dict[str, Any], held: dict[str, int], remap: Remap | None, scratch: str) -> dict[str, int]:
    """A detached mount of each source, by destination."""
    trees = {}
    for entry in spec["mounts"]:
        where = entry["destination"]
        if entry["type"] == "bind":
            tree = held.pop(where, -1)
            tree = tree if tree >= 0 else _clone(entry)
            if remap is not None and (entry.get("workbench") or {}).get("mapped"):
                remap.map_tree(tree, entry["source"])
        elif entry["type"] == "overlay":
            tree = binds.clone_image(entry["workbench"], f"image {entry['source']}", scratch, remap)
        else:
            continue
        binds.protect_below(entry, tree)
        trees[where] = tree
    return trees


def _clone(entry: dict[str, Any]) -> int:
    source = binds.open_source(entry)
    try:
        return mount.clone_tree(source, recursive="rbind" in entry["options"])
    finally:
        os.close(source)


def _small_init(spec: dict[str, Any], root: int, sources: Sources) -> tuple[list[dict[str, Any]], list[str]]:
    """`--init`: the mount of the small program, and the command line that begins with it. It executes a path, which is
    looked up here, in the image or where the user mounts something."""
    program = os.path.join(sources.folder, "init")
    fd = os.open(program, _NEW_FILE, 0o755)
    with open(fd, "wb") as file:
        file.write(tiny_init.program())
    os.chmod(program, 0o755)
    args = [str(word) for word in spec["process"]["args"]]
    path = args[0]
    if "/" not in path:
        folders = next((e[5:] for e in spec["process"]["env"] if e.startswith("PATH=")), "").split(":")
        candidates = [f"{folder}/{path}" for folder in folders if folder.startswith("/")]
        places = [
            entry["destination"].rstrip("/") + "/" for entry in spec["mounts"] if entry["type"] in ("bind", "overlay")
        ]
        path = next((one for one in candidates if _is_program(root, one) or one.startswith(tuple(places))), "")
    if not path:
        raise init.ExecError(127, 2, f'exec: "{args[0]}": executable file not found in $PATH'.encode())
    entry = {"destination": oci_config.INIT, "type": "bind", "source": program, "options": ["bind", "ro"]}
    return [entry], [oci_config.INIT, path, *args]


def _is_program(root: int, path: str) -> bool:
    try:
        fd = open_in_root(root, path, _HANDLE)
    except OSError:
        return False
    try:
        mode = os.fstat(fd).st_mode
        return stat.S_ISREG(mode) and bool(mode & 0o111)
    finally:
        os.close(fd)
