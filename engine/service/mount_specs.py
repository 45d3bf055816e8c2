"""Mounts as people write them: `-v` (HostConfig.Binds), `--mount`, and the API's JSON. Pure, but for `abspath`.

The rules and the wording of the errors are Docker's (docker/cli opts/mount.go; moby daemon/volume/mounts). What Docker
leaves to the platform is decided so here: `z` and `Z` (SELinux relabelling) are accepted and change nothing, because
containers of this engine run without SELinux labels of their own; `consistency` means nothing on Linux.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from engine.base.units import parse_size
from engine.errors import EngineError, InvalidInput
from engine.model import Mount, MountType

PROPAGATIONS = frozenset(("private", "rprivate", "shared", "rshared", "slave", "rslave"))
_MODES: tuple[frozenset[str], ...] = (
    frozenset(("ro", "rw")),
    frozenset(("z", "Z")),
    PROPAGATIONS,
    frozenset(("nocopy",)),
    frozenset(("consistent", "cached", "delegated")),
)
# The option groups of the API, and the type of mount that each belongs to.
_GROUPS = {"bind": "BindOptions", "volume": "VolumeOptions", "image": "ImageOptions", "tmpfs": "TmpfsOptions"}


def clean_path(path: str) -> str:
    """`path` as Go's path.Clean has it (posixpath keeps two leading slashes)."""
    cleaned = posixpath.normpath(path) if path else "."
    return cleaned[1:] if cleaned.startswith("//") else cleaned


def valid_mode(mode: str) -> bool:
    """Whether the options behind the second colon of `-v` are known, and at most one of each kind."""
    if not mode:
        return True
    words = mode.split(",")
    if not all(any(word in known for known in _MODES) for word in words):
        return False
    return all(sum(word in known for word in words) <= 1 for known in _MODES)


# --- -v -------------------------------------------------------------------------------------------


def parse_bind(raw: str, driver: str = "") -> Mount:
    """`SOURCE:TARGET[:OPTIONS]`, or `TARGET` alone. Raises `InvalidInput`. A missing bind source will be made."""
    parts = raw.split(":", 3)
    source, target, mode = "", "", ""
    wrong = f"invalid volume specification: '{raw}'"
    if not parts[0] or len(parts) > 3:
        raise InvalidInput(wrong, hint="write SOURCE:TARGET[:OPTIONS]")
    if len(parts) == 1:
        target = parts[0]
    else:
        source, target = parts[:2]
        mode = parts[2] if len(parts) == 3 else ""
        if len(parts) == 2 and valid_mode(target):
            raise InvalidInput(wrong, hint="options need a source and a target: write SOURCE:TARGET:OPTIONS")
    if not valid_mode(mode):
        raise InvalidInput(f"invalid mode: {mode}", hint="ro or rw, z or Z, a propagation, nocopy")
    words = set(mode.split(","))
    kind: MountType = "bind" if source.startswith("/") else "volume"
    propagation = next((word for word in mode.split(",") if word in PROPAGATIONS), "")
    mount = Mount(
        source,
        target,
        "ro" in words,
        kind,
        consistency="",
        propagation=propagation,
        create_source=kind == "bind",
        no_copy="nocopy" in words,
        driver=driver if kind == "volume" else "",
        bind=raw,
        mode=mode,
    )
    options = {"BindOptions"} if propagation else set()
    if "nocopy" in words or mount.driver:
        options.add("VolumeOptions")
    try:
        _validate(mount, options)
    except InvalidInput as error:
        raise InvalidInput(f"{wrong}: {error}", hint=error.hint) from None
    return mount


def parse_volume_flag(text: str, driver: str = "") -> Mount:
    """`-v` on a command line: as `parse_bind`, and a source that begins with a dot is relative to the current folder."""
    source, colon, rest = text.partition(":")
    if colon and source.startswith("."):
        text = f"{os.path.abspath(source)}:{rest}"
    return parse_bind(text, driver)


def split_volumes_from(text: str) -> tuple[str, str]:
    """Container and mode of `--volumes-from NAME[:ro|rw|z|Z]`. Raises `InvalidInput`."""
    name, _, mode = text.partition(":")
    if not text:
        raise InvalidInput("volumes-from specification cannot be an empty string")
    words = set(mode.split(","))
    if not valid_mode(mode) or words & PROPAGATIONS or "nocopy" in words:
        raise InvalidInput(f"invalid mode: {mode}", hint="ro or rw")
    return name, mode or "rw"


# --- --mount --------------------------------------------------------------------------------------


def _boolean(key: str, value: str | None) -> bool:
    if value not in (None, "1", "true", "0", "false"):
        raise InvalidInput(
            f"invalid value for '{key}': invalid boolean value (\"{value}\"): "
            'must be one of "true", "1", "false", or "0" (default "true")'
        )
    return value in (None, "1", "true")


def _source(_key: str, value: str) -> dict[str, Any]:
    return {"source": os.path.abspath(value) if value.startswith(".") else value}


def _recursive(key: str, value: str) -> dict[str, Any]:
    known: dict[str, dict[str, Any]] = {
        "enabled": {},
        "disabled": {"non_recursive": True},
        "writable": {"read_only_non_recursive": True},
        "readonly": {"read_only_force_recursive": True},
    }
    if value not in known:
        words = 'must be "enabled", "disabled", "writable", or "readonly"'
        raise InvalidInput(f"invalid value for {key}: {value} ({words})")
    return known[value]


def _deprecated(_key: str, _value: str) -> dict[str, Any]:
    raise InvalidInput("bind-nonrecursive is deprecated, use bind-recursive=disabled instead")


def _size(key: str, value: str) -> dict[str, Any]:
    try:
        return {"tmpfs_size": parse_size(value)}
    except EngineError:
        raise InvalidInput(f"invalid value for {key}: {value}") from None


def _tmpfs_mode(key: str, value: str) -> dict[str, Any]:
    if not value.isascii() or not value.isdigit() or any(c in "89" for c in value) or int(value, 8) >= 1 << 32:
        raise InvalidInput(f"invalid value for {key}: {value}", hint="write it in octal: 1770")
    return {"tmpfs_mode": int(value, 8)}


_BOOLEANS = {
    "readonly": "read_only",
    "ro": "read_only",
    "volume-nocopy": "no_copy",
    "bind-create-src": "create_source",
}
_TEXTS = {
    "target": "target",
    "dst": "target",
    "destination": "target",
    "volume-subpath": "subpath",
    "image-subpath": "subpath",
    "volume-driver": "driver",
}
_LOWER = {"type": "type", "consistency": "consistency", "bind-propagation": "propagation"}
_MAPS = {"volume-label": "labels", "volume-opt": "driver_options"}
_SPECIAL: dict[str, Callable[[str, str], dict[str, Any]]] = {
    "source": _source,
    "src": _source,
    "bind-recursive": _recursive,
    "bind-nonrecursive": _deprecated,
    "tmpfs-size": _size,
    "tmpfs-mode": _tmpfs_mode,
}


def parse_mount_flag(text: str) -> Mount:
    """`--mount type=volume,src=data,dst=/data,readonly,…` (one line of CSV). Raises `InvalidInput`."""
    text = text.strip()
    if not text:
        raise InvalidInput("value is empty")
    try:
        fields = next(csv.reader(io.StringIO(text), strict=True))
    except (csv.Error, StopIteration) as error:
        raise InvalidInput(f"--mount {text}: {error}") from None
    values: dict[str, Any] = {"type": "volume"}
    groups: set[str] = set()
    for field in fields:
        key = _field(field, values)
        group = key.partition("-")[0]
        if group in _GROUPS and "-" in key and not field.lower().endswith("bind-recursive=enabled"):
            groups.add(group)
    _check_flag(values, groups)
    return Mount(**values)


def _field(field: str, values: dict[str, Any]) -> str:
    """Reads one `key=value` into `values`; returns the key."""
    key, equals, value = field.partition("=")
    if key.strip() != key:
        raise InvalidInput(f"invalid option '{key.strip()}' in '{field}': option should not have whitespace")
    if equals and not value.strip():
        raise InvalidInput(f"invalid value for '{key}': value is empty")
    if value.strip() != value:
        raise InvalidInput(f"invalid value for '{key}' in '{field}': value should not have whitespace")
    key = key.lower()
    if not equals and key not in (*_BOOLEANS, "bind-nonrecursive"):
        raise InvalidInput(f"invalid field '{field}' must be a key=value pair")
    if key in _BOOLEANS:
        values[_BOOLEANS[key]] = _boolean(key, value if equals else None)
    elif key in _TEXTS:
        values[_TEXTS[key]] = value
    elif key in _LOWER:
        values[_LOWER[key]] = value.lower()
    elif key in _MAPS:
        name, _, text = value.partition("=")
        values.setdefault(_MAPS[key], {})
        if name:
            values[_MAPS[key]][name] = text
    elif key in _SPECIAL:
        values |= _SPECIAL[key](key, value)
    else:
        raise InvalidInput(f"unknown option '{key}' in '{field}'")
    return key


def _check_flag(values: Mapping[str, Any], groups: set[str]) -> None:
    kind = values["type"]
    if not values.get("target"):
        raise InvalidInput("target is required", hint="add dst=/path/in/container")
    for group in sorted(groups):
        if group != kind:
            raise InvalidInput(f"cannot mix '{group}-*' options with mount type '{kind}'")
    if values.get("read_only_non_recursive") and not values.get("read_only"):
        raise InvalidInput("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
    if values.get("read_only_force_recursive"):
        if not values.get("read_only"):
            raise InvalidInput("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
        if values.get("propagation") != "rprivate":
            raise InvalidInput(
                "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction"
            )
    check_type(kind)


def check_type(kind: str) -> None:
    """Refuses types that are not a Linux engine's, by name."""
    if kind in ("npipe", "cluster"):
        what = "a named pipe of Windows" if kind == "npipe" else "a volume of a Swarm cluster"
        raise InvalidInput(
            f'mount type "{kind}" is {what}: this engine has neither', hint="bind, volume, tmpfs and image are known"
        )
    if kind not in _GROUPS:
        raise InvalidInput(
            f'invalid mount config for type "{kind}": mount type unknown',
            hint="bind, volume, tmpfs and image are known",
        )


# --- validation -----------------------------------------------------------------------------------


def validate(mount: Mount, *, options: Sequence[str] = (), source_must_exist: bool = True) -> None:
    """What Docker's daemon checks of a mount. `options` are the API's option groups that were given. Raises `InvalidInput`."""
    _validate(mount, set(options))
    if mount.type == "bind" and source_must_exist and not mount.create_source and not os.path.lexists(mount.source):
        raise InvalidInput(
            f'invalid mount config for type "bind": bind source path does not exist: {mount.source}',
            hint="create it, or write bind-create-src (or -v), which makes it",
        )


def _validate(mount: Mount, options: set[str]) -> None:
    def wrong(text: str) -> InvalidInput:
        return InvalidInput(f'invalid mount config for type "{mount.type}": {text}')

    for value in (mount.source, mount.target, mount.subpath):
        if any(c in value for c in "\0\n\r"):
            raise wrong("a control character in a path")
    if not mount.target:
        raise wrong("field Target must not be empty")
    if clean_path(mount.target) == "/":
        raise wrong("invalid specification: destination can't be '/'")
    if not mount.target.startswith("/"):
        raise wrong(f"invalid mount path: '{mount.target}' mount path must be absolute")
    check_type(mount.type)
    if mount.type == "bind":
        if not mount.source:
            raise wrong("field Source must not be empty")
        if mount.propagation and mount.propagation not in PROPAGATIONS:
            raise wrong(f"invalid propagation mode: {mount.propagation}")
    for group in _GROUPS.values():
        if group in options and group != _GROUPS[mount.type]:
            raise wrong(f"field {group} must not be specified")
    if mount.type == "bind" and not mount.source.startswith("/"):
        raise wrong(f"invalid mount path: '{mount.source}' mount path must be absolute")
    if mount.type == "tmpfs":
        if mount.source:
            raise wrong("field Source must not be specified")
        tmpfs_options(mount, wrong)
    if mount.type == "image" and not mount.source:
        raise wrong("field Source must not be empty")
    if mount.subpath:
        if mount.type == "volume" and not mount.source:
            raise wrong("must not set Subpath when using anonymous volumes")
        if not _is_local(mount.subpath):
            raise wrong("subpath must be a relative path within the volume")


def _is_local(path: str) -> bool:
    """Go's filepath.IsLocal: relative, not empty, and never above where it starts."""
    return bool(path) and not path.startswith("/") and not f"{posixpath.normpath(path)}/".startswith("../")


def tmpfs_options(mount: Mount, wrong: Callable[[str], InvalidInput] = InvalidInput) -> list[str]:
    """The options of mount(8) that a tmpfs mount asks for: `mode=700`, `size=1m`."""
    result = ["ro"] if mount.read_only else []
    if mount.tmpfs_mode:
        result.append(f"mode={mount.tmpfs_mode:o}")
    if mount.tmpfs_size:
        for suffix, factor in (("g", 1 << 30), ("m", 1 << 20), ("k", 1 << 10), ("", 1)):
            if mount.tmpfs_size % factor == 0:
                result.append(f"size={mount.tmpfs_size // factor}{suffix}")
                break
    for option in mount.tmpfs_options:
        if option.partition("=")[0] not in ("exec", "noexec"):
            raise wrong(f"invalid option: {option.partition('=')[0]}")
        result.append(option)
    return result


# --- the API's JSON -------------------------------------------------------------------------------


def mount_from_api(document: Mapping[str, Any]) -> tuple[Mount, list[str]]:
    """One element of HostConfig.Mounts, and the names of the option groups that it holds (for `validate`)."""

    def group(name: str) -> Mapping[str, Any]:
        found = document.get(name)
        if found is not None and not isinstance(found, Mapping):
            raise InvalidInput(f"Mounts: {name} is not an object")
        return found or {}

    bind, volume, image, tmpfs = (group(_GROUPS[kind]) for kind in ("bind", "volume", "image", "tmpfs"))
    driver = volume.get("DriverConfig") or {}
    options = []
    for entry in tmpfs.get("Options") or ():
        if not isinstance(entry, Sequence) or not 1 <= len(entry) <= 2:
            raise InvalidInput("invalid option array length")
        options.append("=".join(map(str, entry)))
    mount = Mount(
        str(document.get("Source") or ""),
        str(document.get("Target") or ""),
        bool(document.get("ReadOnly")),
        cast("MountType", str(document.get("Type") or "")),
        str(document.get("Consistency") or ""),
        str(bind.get("Propagation") or ""),
        bool(bind.get("NonRecursive")),
        bool(bind.get("CreateMountpoint")),
        bool(bind.get("ReadOnlyNonRecursive")),
        bool(bind.get("ReadOnlyForceRecursive")),
        bool(volume.get("NoCopy")),
        dict(volume.get("Labels") or {}),
        str(volume.get("Subpath") or image.get("Subpath") or ""),
        str(driver.get("Name") or ""),
        dict(driver.get("Options") or {}),
        int(tmpfs.get("SizeBytes") or 0),
        int(tmpfs.get("Mode") or 0),
        tuple(options),
    )
    return mount, [name for name in _GROUPS.values() if document.get(name) is not None]


def mount_to_api(mount: Mount) -> dict[str, Any]:
    """What `inspect` shows under HostConfig.Mounts: only what was set."""

    def given(**values: Any) -> dict[str, Any]:
        return {key: value for key, value in values.items() if value}

    document = given(Type=mount.type, Source=mount.source, Target=mount.target, ReadOnly=mount.read_only)
    document |= given(Consistency=mount.consistency)
    driver = given(Name=mount.driver, Options=dict(mount.driver_options))
    groups = {
        "BindOptions": given(
            Propagation=mount.propagation,
            NonRecursive=mount.non_recursive,
            CreateMountpoint=mount.create_source,
            ReadOnlyNonRecursive=mount.read_only_non_recursive,
            ReadOnlyForceRecursive=mount.read_only_force_recursive,
        ),
        "VolumeOptions": given(
            NoCopy=mount.no_copy,
            Labels=dict(mount.labels),
            Subpath=mount.subpath if mount.type == "volume" else "",
            DriverConfig=driver,
        ),
        "ImageOptions": given(Subpath=mount.subpath if mount.type == "image" else ""),
        "TmpfsOptions": given(
            SizeBytes=mount.tmpfs_size,
            Mode=mount.tmpfs_mode,
            Options=[option.split("=", 1) for option in mount.tmpfs_options],
        ),
    }
    return document | {name: group for name, group in groups.items() if group}


def absolute(mount: Mount) -> Mount:
    """With its target cleaned, as it is compared and mounted."""
    return dataclasses.replace(mount, target=clean_path(mount.target))
