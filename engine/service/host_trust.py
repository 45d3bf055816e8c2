"""The host's CA bundle and proxies in RUN steps, behind a proxy that inspects TLS (`build --host-ca`).

The bundle is an extra overlayfs layer between the image and what the step writes: programs that read the system's bundle find the
host's, and a step that installs or updates `ca-certificates` replaces the file as ever (over a bind mount, its rename would
fail with EBUSY). Programs that keep a bundle of their own are told by environment variables. Neither is in the image, its
config or a cache key: a step that changed the bundle in place gets the image's own bytes back below its change.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import NotFound
from engine.linux.openat2 import open_in_root
from engine.store.view import Entry, LayerView

# Where distributions keep the bundle (Go's crypto/x509 root_linux.go reads the same places).
BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",  # Debian, Ubuntu, Alpine, Arch
    "/etc/pki/tls/certs/ca-bundle.crt",  # Fedora, RHEL
    "/etc/ssl/ca-bundle.pem",  # openSUSE
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",  # RHEL 7 and newer
    "/etc/ssl/cert.pem",  # Alpine, OpenBSD's tools
)
INSIDE = "/run/workbench-host-ca"  # a mount of the step alone
VARIABLES = (
    "SSL_CERT_FILE",  # OpenSSL, Go, Ruby, Rust's native-certs
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CARGO_HTTP_CAINFO",
)
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_APT = 'Acquire::https::CAInfo "{bundle}";\n'


@dataclass(frozen=True, slots=True)
class HostTrust:
    """What a step gets: `layer` goes on top of the image's layers, `mounted` (a host folder) to `INSIDE`, `env` under the step's own."""

    layer: Path
    mounted: Path
    env: Mapping[str, str]
    originals: Mapping[str, str]  # path of a bundle in the image: the layer file it hides
    bundle: Path


def host_bundle(environ: Mapping[str, str] = os.environ) -> Path:
    """The host's own bundle. Raises `NotFound`."""
    for place in (environ.get("SSL_CERT_FILE", ""), *BUNDLES):
        if place and os.path.isfile(place):
            return Path(place)
    raise NotFound(
        "--host-ca: this host has no CA bundle", hint="install ca-certificates, or set SSL_CERT_FILE to the bundle"
    )


def prepare(folder: Path, lowers: Sequence[Path], environ: Mapping[str, str] = os.environ) -> HostTrust:
    """Makes the layer and the mount below `folder` (the step's own, removed with it)."""
    bundle = host_bundle(environ)
    layer, mounted = folder / "host-ca-layer", folder / "host-ca"
    layer.mkdir(mode=0o755)
    mounted.mkdir(mode=0o755)
    shutil.copyfile(bundle, mounted / "ca-bundle.pem")
    (mounted / "apt.conf").write_text(_APT.format(bundle=f"{INSIDE}/ca-bundle.pem"))
    for name in ("ca-bundle.pem", "apt.conf"):
        os.chmod(mounted / name, 0o644)
    view = LayerView(lowers)
    _like(layer, view.lookup("", follow=False))
    originals = {}
    for place in BUNDLES:
        found = view.lookup(place)
        if found is not None and stat.S_ISREG(found.status.st_mode) and found.path not in originals:
            _override(layer, view, found, bundle)
            originals[found.path] = found.real
    env = dict.fromkeys(VARIABLES, f"{INSIDE}/ca-bundle.pem") | {"APT_CONFIG": f"{INSIDE}/apt.conf"}
    env |= proxies(environ)
    return HostTrust(layer, mounted, env, originals, bundle)


def proxies(environ: Mapping[str, str]) -> dict[str, str]:
    """The host's proxy variables, each in both cases: programs differ in which they read."""
    found: dict[str, str] = {}
    for name in PROXIES:
        value = environ.get(name) or environ.get(name.lower())
        if value:
            found |= {name: value, name.lower(): value}
    return found


def _like(real: Path, entry: Entry | None) -> None:
    """An overlay shows the topmost layer's metadata of a merged directory: it must be the image's."""
    if entry is not None and entry.real != "/":
        os.chown(real, entry.status.st_uid, entry.status.st_gid)
        os.chmod(real, stat.S_IMODE(entry.status.st_mode))
        os.utime(real, ns=(entry.status.st_mtime_ns, entry.status.st_mtime_ns))


def _override(layer: Path, view: LayerView, found: Entry, bundle: Path) -> None:
    parents = found.path.split("/")[:-1]
    made = [layer.joinpath(*parents[: count + 1]) for count in range(len(parents))]
    for real in made:
        real.mkdir(exist_ok=True)
    target = layer / found.path
    shutil.copyfile(bundle, target)
    _like(target, found)
    for count in range(len(parents), 0, -1):
        _like(made[count - 1], view.lookup("/".join(parents[:count]), follow=False))


def scrub(trust: HostTrust, upper: Path) -> None:
    """Takes the host's bundle out of what the step wrote: where a bundle was changed in place, the copy began with the host's."""
    host = trust.bundle.read_bytes()
    root = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, original in trust.originals.items():
            _scrub_file(root, path, Path(original), host)
    finally:
        os.close(root)


def _scrub_file(root: int, path: str, original: Path, host: bytes) -> None:
    try:
        fd = open_in_root(root, path, os.O_RDWR | os.O_NONBLOCK, no_symlinks=True)
    except OSError:
        return  # not touched, removed, or no plain file any more
    with os.fdopen(fd, "r+b") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return
        written = file.read()
        if written.startswith(host):
            stamp = os.fstat(file.fileno()).st_mtime_ns
            file.seek(0)
            file.truncate()
            file.write(original.read_bytes() + written[len(host) :])
            file.flush()
            os.utime(file.fileno(), ns=(stamp, stamp))
