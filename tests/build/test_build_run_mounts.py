"""RUN --mount: every type, in real steps. What is mounted is in no layer, and what is secret is nowhere."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from engine.errors import AccessDenied, BuildFailed, DockerfileError, InvalidInput
from engine.model import BuildSecret, SshAgent
from tests.build.conftest import Builder, Built, write_files
from tests.searching import files_with

pytestmark = pytest.mark.root
Make = Callable[..., Built]


def test_a_bind_of_the_context_shows_what_a_copy_would(make: Make) -> None:
    built = make(
        "RUN --mount=target=/ctx ls -ln /ctx > /list && ! touch /ctx/new && cat /ctx/a/b > /b",
        {"a/b": "content", "secret": "x", ".dockerignore": "secret\nDockerfile"},
    )
    listing = built.text("list")
    assert "secret" not in listing
    assert " 0        0 " in listing.replace("\t", " ")
    assert built.text("b") == "content"
    assert built.paths() == ["b", "list"]


def test_a_bind_is_part_of_the_cache_key(make: Make) -> None:
    text = "RUN --mount=source=in,target=/in cat /in > /out"
    assert make(text, {"in": "one", "other": "1"}).cached[-1] is False
    assert make(text, {"in": "one", "other": "2"}).cached[-1] is True
    built = make(text, {"in": "two", "other": "2"})
    assert built.cached[-1] is False
    assert "in content changed" in built.reasons["RUN --mount=source=in,target=/in cat /in > /out"]
    assert built.text("out") == "two"


def test_writes_to_a_bind_are_dropped(make: Make, tmp_path: Path) -> None:
    built = make(
        "FROM test/busybox AS one\nRUN mkdir /d && echo old > /d/f\n"
        "FROM test/busybox\nRUN --mount=from=one,source=/d,target=/m,rw echo new > /m/f && cat /m/f > /seen\n"
        "RUN --mount=from=one,target=/m cat /m/d/f > /again\n"
        "RUN --mount=target=/c,rw echo changed > /c/f && cp /c/f /ctx",
        {"f": "mine"},
    )
    assert (built.text("seen"), built.text("again"), built.text("ctx")) == ("new\n", "old\n", "changed\n")
    assert (tmp_path / "context/f").read_text() == "mine"


def test_a_bind_from_an_image_and_relative_targets(make: Make) -> None:
    built = make("WORKDIR /w\nRUN --mount=from=test/busybox,source=etc/passwd,target=p head -n1 /w/p > x")
    assert built.text("w/x").startswith("root:")
    assert built.layers[-1].keys() == {"w", "w/x"}


@pytest.mark.parametrize("target", ["/", ".", "../.."])
def test_the_root_is_no_target(make: Make, target: str) -> None:
    with pytest.raises(DockerfileError, match="invalid mount target"):
        make(f"RUN --mount=type=tmpfs,target={target} true")


def test_links_in_a_source_never_lead_out(make: Make, tmp_path: Path) -> None:
    """BD-06, BD-09: a link to / is the stage's own root."""
    (tmp_path / "canary").write_text("host")
    text = (
        f"FROM test/busybox AS evil\nRUN ln -s / /root-link && ln -s ../../../.. /up && ln -s {tmp_path} /abs && mkdir /in && echo stage > /in/f\n"
        "FROM test/busybox\n"
        f"RUN --mount=from=evil,source=/root-link,target=/m ls /m/in > /one; ls -d /m{tmp_path} >> /one 2>&1; true\n"
        "RUN --mount=from=evil,source=/up/in,target=/m cat /m/f > /two\n"
    )
    built = make(text)
    assert "f" in built.text("one").splitlines()
    assert "No such file" in built.text("one")
    assert built.text("two") == "stage\n"
    with pytest.raises(DockerfileError, match="is not in stage evil"):
        make(text + "RUN --mount=from=evil,source=/abs,target=/m true")


def test_a_cache_is_kept_and_is_in_no_layer(make: Make) -> None:
    text = "RUN --mount=type=cache,target=/cache echo {0} >> /cache/log && cat /cache/log > /log"
    make(text.format(1))
    built = make(text.format(2))
    assert built.text("log").split() == ["1", "2"]
    assert built.paths() == ["log"]


def test_caches_are_told_apart_by_id(make: Make) -> None:
    built = make(
        "RUN --mount=type=cache,id=one,target=/x echo 1 > /x/f\n"
        "RUN --mount=type=cache,id=two,target=/x ls /x > /two\n"
        "RUN --mount=type=cache,id=one,target=/y cat /y/f > /one\n"
        "RUN --mount=type=cache,id=three,target=/z,uid=7,gid=8,mode=0701 stat -c '%u:%g %a' /z > /three\n"
        "RUN --mount=type=cache,id=one,target=/r,ro touch /r/f 2> /ro || true",
    )
    assert (built.text("two"), built.text("one"), built.text("three")) == ("", "1\n", "7:8 701\n")
    assert "Read-only" in built.text("ro")


def test_a_cache_begins_with_what_it_is_from(make: Make) -> None:
    built = make(
        "FROM test/busybox AS seed\nRUN mkdir /s && echo seed > /s/f\nFROM test/busybox\n"
        "RUN --mount=type=cache,id=seeded,from=seed,source=/s,target=/c cat /c/f > /x && echo more > /c/f\n"
        "RUN --mount=type=cache,id=seeded,from=seed,source=/s,target=/c cat /c/f > /y",
    )
    assert (built.text("x"), built.text("y")) == ("seed\n", "more\n")


@pytest.mark.parametrize("identity", ["../../../../tmp/escape", "/etc", "a" * 3000, "x/../../y"])
def test_no_id_names_a_place(make: Make, builder: Builder, identity: str) -> None:
    """BD-08."""
    make(f"RUN --mount=type=cache,id={identity},target=/c echo hello > /c/{len(identity)}")
    assert not Path("/tmp/escape").exists()
    assert not Path(f"/etc/{len(identity)}").exists()
    folders = os.listdir(builder.store.root / "cache-mounts")
    assert all(len(name) == 64 and set(name) <= set("0123456789abcdef") for name in folders)


def test_a_path_in_a_cache_stays_in_it(make: Make, tmp_path: Path) -> None:
    """BD-01: the cache's content is the steps' own, and a source is resolved inside it."""
    (tmp_path / "canary").write_text("host")
    make(f"RUN --mount=type=cache,id=sub,target=/c rm -rf /c/sub && ln -s {tmp_path} /c/sub && mkdir /c/real")
    with pytest.raises(Exception, match="subpath"):
        make("RUN --mount=type=cache,id=sub,source=sub,target=/c cat /c/canary")
    make("RUN --mount=type=cache,id=sub,source=real,target=/c echo fine > /c/f")


def test_private_and_locked_caches(builder: Builder, make: Make, tmp_path: Path) -> None:
    """Two builds at once: `locked` waits, `private` gets another folder."""
    for sharing in ("locked", "private", "shared"):
        contexts = []
        for name in ("a", "b"):
            folder = tmp_path / f"{sharing}-{name}"
            folder.mkdir()
            script = f"echo {name} >> /c/log && sleep 0.4 && echo {name} >> /c/log && cat /c/log > /log"
            text = f"FROM test/busybox\nRUN --mount=type=cache,id=t-{sharing},sharing={sharing},target=/c {script}\n"
            write_files(folder, {"Dockerfile": text})
            contexts.append(folder)
        with ThreadPoolExecutor() as pool:
            results = list(pool.map(builder, contexts))
        logs = sorted("".join(built.text("log").split()) for built in results)
        if sharing == "locked":
            assert {len(log) for log in logs} == {2, 4}
            assert all(log in ("aa", "bb", "aabb", "bbaa") for log in logs)
        elif sharing == "private":
            assert logs == ["aa", "bb"]
        else:
            assert max(len(log) for log in logs) == 4


def test_tmpfs(make: Make) -> None:
    built = make("RUN --mount=type=tmpfs,target=/t,size=1m echo x > /t/f && df -k /t | tail -n1 > /df")
    assert " 1024 " in built.text("df")
    assert built.paths() == ["df"]


SECRET = b"the-value-of-a-secret-4711"


def assert_nowhere(builder: Builder, built: Built) -> None:
    """BD-13: no file of the data root, and no event, holds the secret."""
    assert all(SECRET.decode() not in str(event) for event in built.events)
    assert files_with(builder.store.root, SECRET.decode()) == []


def test_secrets(make: Make, builder: Builder, tmp_path: Path) -> None:
    (tmp_path / "s").write_bytes(SECRET)
    secrets = (BuildSecret("key", path=tmp_path / "s"), BuildSecret("other", value=SECRET))
    built = make(
        "RUN --mount=type=secret,id=key wc -c < /run/secrets/key > /n && stat -c '%a %u' /run/secrets/key > /m\n"
        "RUN --mount=type=secret,id=key,target=/etc/k,mode=0444,uid=7 stat -c '%a %u' /etc/k >> /m && "
        "grep /etc/k /proc/mounts | cut -d' ' -f3 > /fs\n"
        "RUN --mount=type=secret,id=other,env=TOKEN test ${#TOKEN} = 26 && ! test -e /run/secrets/other\n"
        "RUN --mount=type=secret,id=missing ! test -e /run/secrets/missing\n"
        "RUN ! test -e /run/secrets && ! test -e /etc/k && ! env | grep TOKEN",
        secrets=secrets,
    )
    assert built.text("n") == "26\n"
    assert built.text("m").splitlines() == ["400 0", "444 7"]
    assert built.text("fs") == "tmpfs\n"
    assert built.paths() == ["fs", "m", "m", "n"]
    assert_nowhere(builder, built)


def test_a_secret_is_not_in_the_key(make: Make) -> None:
    text = "RUN --mount=type=secret,id=k cat /run/secrets/k | wc -c > /n"
    assert make(text, secrets=(BuildSecret("k", value=b"1"),)).cached[-1] is False
    assert make(text, secrets=(BuildSecret("k", value=b"22"),)).cached[-1] is True


def test_a_required_secret(make: Make) -> None:
    with pytest.raises(DockerfileError, match="secret k: not found") as caught:
        make("RUN --mount=type=secret,id=k,required cat /run/secrets/k")
    assert "--secret id=k" in str(caught.value.hint)


class FakeAgent:
    """Answers every message with its own bytes, as an agent's protocol looks from outside: framed and back."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with client:
                while data := client.recv(1024):
                    client.sendall(data)


def test_an_agent_is_forwarded(make: Make, tmp_path: Path) -> None:
    agent = FakeAgent(tmp_path / "agent")
    built = make(
        "RUN --mount=type=ssh echo $SSH_AUTH_SOCK > /path && stat -c '%a %u %F' $SSH_AUTH_SOCK > /mode\n"
        "RUN --mount=type=ssh,target=/tmp/sock,mode=0666,uid=5 stat -c '%a %u' $SSH_AUTH_SOCK >> /mode\n"
        'RUN test -z "$SSH_AUTH_SOCK" && ! test -e /run/buildkit',
        ssh=(SshAgent(socket=tmp_path / "agent"),),
    )
    agent.close()
    assert built.text("path") == "/run/buildkit/ssh_agent.0\n"
    assert built.text("mode").splitlines() == ["600 0 socket", "666 5"]
    assert built.paths() == ["mode", "mode", "path"]


@pytest.mark.peer("ssh-agent")
def test_an_agent_made_of_a_key(tmp_path: Path) -> None:
    """The step's socket speaks with a real ssh-agent that holds the key."""
    from engine.service.ssh_forward import forward

    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "k")], check=True)
    with forward(SshAgent(keys=(tmp_path / "k",)), tmp_path, "s", (0, 0), 0o600) as path:
        listed = subprocess.run(["ssh-add", "-L"], env={"SSH_AUTH_SOCK": str(path)}, capture_output=True, text=True)
    assert listed.stdout.split()[1] == (tmp_path / "k.pub").read_text().split()[1]
    assert not path.exists()


def test_agents_that_are_not_there(make: Make, tmp_path: Path) -> None:
    make('RUN --mount=type=ssh test -z "$SSH_AUTH_SOCK"')
    with pytest.raises(DockerfileError, match="ssh forward key default"):
        make("RUN --mount=type=ssh,required true")
    with pytest.raises(Exception, match="No such file"):
        make("RUN --mount=type=ssh true # x", ssh=(SshAgent(socket=tmp_path / "none"),))


def test_network_and_rights_are_asked_for(make: Make) -> None:
    """BD-03."""
    built = make("RUN --network=none ip link | grep -c ^[0-9] > /n; true")
    assert built.text("n") == "1\n"
    for flag in ("--network=host", "--security=insecure"):
        with pytest.raises((DockerfileError, AccessDenied), match="is not allowed"):
            make(f"RUN {flag} true")
    built = make("RUN --security=insecure grep CapEff /proc/self/status > /c", allow=("security.insecure",))
    plain = make("RUN --security=sandbox grep CapEff /proc/self/status > /c")
    assert int(built.text("c").split()[1], 16) > int(plain.text("c").split()[1], 16)
    make("RUN --network=host true", allow=("network.host",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("type=nfs,target=/x", "unsupported mount type"),
        ("type=cache,target=/x,sharing=maybe", "unsupported sharing value"),
        ("type=bind,target=/x,bind-propagation=shared", "unexpected key 'bind-propagation'"),
        ("type=bind,target=/x,mode=0755", "mode not allowed"),
        ("type=tmpfs,target=/x,uid=1", "uid not allowed"),
        ("type=secret", "one of source, target required"),
        ("type=secret,id=a,source=b", "both source and id"),
        ("type=secret,id=a,from=x", "should not have a from"),
        ("type=bind,target=/x,required", "unexpected key 'required'"),
        ("type=bind,target=/x,size=1m", "unexpected key 'size'"),
        ("type=cache,target=/x,ro=perhaps", "invalid value for ro"),
        ("type=cache,target=/x,uid=-1", "invalid value -1 for uid"),
        ("type=ssh,source=x", "ssh does not support source"),
        ("target=/x,exec", "unexpected key 'exec'"),
        ("source=/nowhere,target=/x", "is not in the build context"),
        ("from=test/busybox,source=nowhere,target=/x", "is not in image"),
    ],
)
def test_bad_mounts(make: Make, options: str, message: str) -> None:
    """BD-07: only known keys and values."""
    with pytest.raises((DockerfileError, InvalidInput), match=message):
        make(f"RUN --mount={options} true")


def test_a_mount_point_swapped_by_the_step_takes_nothing_along(make: Make, tmp_path: Path) -> None:
    """BD-02: the engine's own mount points are removed, but never through a link that the step put there."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/x").mkdir()
    built = make(
        "RUN --mount=type=tmpfs,target=/a/b/x mkdir /a2 && mv /a/b /a2/ 2>/dev/null; true\n"
        f"RUN --mount=type=tmpfs,target=/q/x rm -rf /other; ln -s {tmp_path}/victim /other"
    )
    assert (tmp_path / "victim/x").is_dir()
    assert "q" not in built.paths()


def test_a_failed_step_leaves_no_mount(make: Make, builder: Builder) -> None:
    def mounts() -> list[str]:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
        return [line for line in lines if str(builder.store.root) in line]

    before = mounts()
    with pytest.raises(BuildFailed):
        make("RUN --mount=target=/c,rw --mount=type=secret,id=k false", secrets=(BuildSecret("k", value=SECRET),))
    assert mounts() == before
    leftovers = [n for n in os.listdir(builder.store.tmp) if n.startswith(("mount-", "run-", "step-"))]
    assert leftovers == []
