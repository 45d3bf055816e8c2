"""What a Dockerfile means: stages, arguments, triggers, contexts, copying; config and history as BuildKit writes them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.build.emulation import check_runnable
from engine.errors import DockerfileError, InvalidInput, NotFound, Unsupported
from engine.model import BuildNotice
from engine.oci.config import ImageConfig
from engine.oci.platform import Platform
from tests.build.conftest import BASE, Builder, Built, write_files

pytestmark = pytest.mark.root
Make = Callable[..., Built]


def test_metadata_and_its_history(make: Make) -> None:
    built = make(
        """FROM scratch
MAINTAINER Me <me@example.com>
ENV A=1 B="two words" C=$A
LABEL a.b=c "d e"="f g"
EXPOSE 80 53/UDP 7000-7002
VOLUME /v ["/w"]
USER 12:34
STOPSIGNAL SIGQUIT
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
HEALTHCHECK --interval=1m30s --timeout=500ms --retries=2 CMD curl -f http://x
ONBUILD COPY . /src
ENTRYPOINT ["/e", "it's \\"q\\""]
CMD run it
ARG X=1
ARG Y
"""
    )
    config = built.config
    assert config["Env"] == [
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "A=1",
        "B=two words",
        "C=",
    ]
    assert config["Labels"] == {"a.b": "c", "d e": "f g"}
    assert sorted(config["ExposedPorts"]) == ["53/udp", "7000/tcp", "7001/tcp", "7002/tcp", "80/tcp"]
    assert sorted(config["Volumes"]) == ["/v", "[/w]"]
    assert config["Healthcheck"] == {
        "Test": ["CMD-SHELL", "curl -f http://x"],
        "Interval": 90 * 10**9,
        "Timeout": 5 * 10**8,
        "Retries": 2,
    }
    assert config["Cmd"] == ["/bin/bash", "-o", "pipefail", "-c", "run it"]
    assert config["WorkingDir"] == "/"
    assert config["OnBuild"] == ["COPY . /src"]
    assert built.document["author"] == "Me <me@example.com>"
    assert built.history == [
        ("MAINTAINER Me <me@example.com>", True),
        ("ENV A=1 B=two words C=", True),
        ("LABEL a.b=c d e=f g", True),
        ("EXPOSE [53/udp 7000/tcp 7001/tcp 7002/tcp 80/tcp]", True),
        ("VOLUME [/v [/w]]", True),
        ("USER 12:34", True),
        ("STOPSIGNAL SIGQUIT", True),
        ("SHELL [/bin/bash -o pipefail -c]", True),
        (
            "HEALTHCHECK {Test:[CMD-SHELL curl -f http://x] Interval:1m30s Timeout:500ms StartPeriod:0s StartInterval:0s Retries:2}",
            True,
        ),
        ('ENTRYPOINT ["/e" "it\'s \\"q\\""]', True),
        ('CMD ["/bin/bash" "-o" "pipefail" "-c" "run it"]', True),
        ("ARG X=1", True),
        ("ARG Y", True),
    ]


def test_an_entrypoint_drops_the_command_of_the_base_alone(make: Make) -> None:
    assert "Cmd" not in make('ENTRYPOINT ["/e"]').config
    assert make('CMD ["c"]\nENTRYPOINT ["/e"]').config["Cmd"] == ["c"]
    assert "Cmd" not in make(f'FROM {BASE} AS a\nCMD ["c"]\nFROM a\nENTRYPOINT ["/e"]').config


def test_arguments_and_variables(make: Make) -> None:
    built = make(
        f"""ARG OUTER=outer
ARG BOTH=first
FROM {BASE}
RUN echo "[$OUTER]" > /1
ARG OUTER
ARG GIVEN=default
ARG BOTH=second
RUN echo "[$OUTER $GIVEN $BOTH]" > /2
ENV GIVEN=env
RUN echo "[$GIVEN]" > /3
ARG TARGETARCH TARGETPLATFORM TARGETSTAGE BUILDOS
RUN echo "$TARGETPLATFORM $TARGETSTAGE $BUILDOS" > /4
""",
        build_args={"GIVEN": "given"},
    )
    assert [built.text(str(n)).strip() for n in (1, 2, 3)] == ["[]", "[outer given second]", "[env]"]
    assert built.text("4").split()[0].startswith("linux/")
    assert built.text("4").split()[1:] == ["default", "linux"]
    run = [text for text, _ in built.history if text.startswith("RUN |3")]
    assert (
        run[0] == 'RUN |3 OUTER=outer GIVEN=given BOTH=second /bin/sh -c echo "[$OUTER $GIVEN $BOTH]" > /2 # buildkit'
    )
    assert 'RUN |3 OUTER=outer GIVEN=env BOTH=second /bin/sh -c echo "[$GIVEN]" > /3 # buildkit' in dict(built.history)


def test_arguments_of_a_base_stage_are_inherited(make: Make) -> None:
    built = make(
        f'FROM {BASE} AS a\nARG X=1\nENV Y=$X\nFROM a\nRUN echo $X$Y > /f\nFROM {BASE}\nCOPY --from=1 /f /f\nRUN test -z "$X"'
    )
    assert built.text("f") == "11\n"


def test_proxies_are_for_steps_alone(make: Make) -> None:
    args = {"http_proxy": "http://p:1", "HTTPS_PROXY": "http://p:2"}
    text = "RUN echo $HTTP_PROXY $http_proxy $https_proxy > /f"
    built = make(text, build_args=args)
    assert built.text("f") == "http://p:1 http://p:1 http://p:2\n"
    assert "p:1" not in json.dumps(built.document)
    assert make(text, build_args={"http_proxy": "http://other"}).cached[-1] is True
    assert make(f"ARG http_proxy\n{text}", build_args=args).history[-1][0].startswith("RUN |1 http_proxy=http://p:1 ")


def test_build_arguments_that_nothing_takes_are_named(make: Make) -> None:
    built = make("ARG A\nRUN true", build_args={"A": "1", "TYPO": "2", "SOURCE_DATE_EPOCH": "1"})
    notices = [event.text for event in built.events if isinstance(event, BuildNotice)]
    assert notices == ["no ARG takes the build arguments TYPO"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM $NONE", "empty"),
        (f"FROM --platform=$P {BASE}", "platform .* is empty"),
        (f"FROM --platform=a/b/c/d {BASE}", "not a platform"),
        (f"FROM {BASE} AS a\nCOPY --from=a / /x", "cannot read from itself"),
        (f"FROM {BASE} AS a\nCOPY --from=b / /x\nFROM {BASE} AS b\nFROM a", "further down"),
        (f"FROM {BASE}\nCOPY --from=7 / /x", "invalid stage index"),
        (f"FROM {BASE}\nARG S=a\nCOPY --from=$S / /x", "variable expansion is not supported"),
        ("ENV A=${A:?is needed}", "is needed"),
        ("STOPSIGNAL SIGNOPE", "invalid signal"),
        ("STOPSIGNAL 0", "invalid signal"),
        ("EXPOSE 70000", "invalid containerPort"),
        ("EXPOSE 80/icmp", "invalid proto"),
        ("EXPOSE 9-8", "invalid containerPort"),
        ("COPY a b", "is not in the build context"),
        ("COPY --chmod=8 Dockerfile /x", "invalid chmod"),
        ("COPY --chmod=u+q Dockerfile /x", "invalid chmod"),
        ("COPY --chmod=10000 Dockerfile /x", "invalid chmod"),
        ("COPY --chown=nobody-here Dockerfile /x", "no user 'nobody-here'"),
        ("COPY --chown=app:nogroup Dockerfile /x", "no group 'nogroup'"),
        ("COPY . /etc/passwd", "not a directory|non-directory"),
        ("COPY Dockerfile /etc", None),
        ("RUN mkdir /x\nCOPY d /", "cannot replace to directory"),
        ("RUN --device=vendor.com/class=x true", "CDI"),
        ("WORKDIR /etc/passwd", "not a directory"),
        ("USER nobody-here\nWORKDIR /new", "no user"),
        ("ADD --checksum=x Dockerfile /y", "requires HTTP"),
    ],
)
def test_mistakes(make: Make, text: str, message: str | None) -> None:
    files = {"d/x": "a file where a directory is"}
    if message is None:
        make(text, files)
        return
    with pytest.raises((DockerfileError, InvalidInput, NotFound, Exception), match=message) as caught:
        make(text, files)
    assert getattr(caught.value, "line", 1) >= 1


# --- COPY -----------------------------------------------------------------------------------------------


def test_copying_directories_and_files(make: Make) -> None:
    files = {"d/a": "a", "d/e/b": "b", "f.txt": "f", "g.txt": "g"}
    built = make(
        "COPY d /new\nCOPY d /slash/\nCOPY f.txt /file\nCOPY f.txt /dir/\nCOPY f.txt g.txt /two\nCOPY *.txt /wild/\n"
        "COPY nothing* /none/\nWORKDIR /w\nCOPY f.txt .\nCOPY f.txt sub/\nCOPY f.txt /link/f",
        files,
    )
    layers = [sorted(layer) for layer in built.layers]
    assert layers == [
        ["new", "new/a", "new/e", "new/e/b"],
        ["slash", "slash/a", "slash/e", "slash/e/b"],
        ["file"],
        ["dir", "dir/f.txt"],
        ["two"],
        ["wild", "wild/f.txt", "wild/g.txt"],
        [],
        ["w"],
        ["w", "w/f.txt"],
        ["w", "w/sub", "w/sub/f.txt"],
        ["var", "var/lib", "var/lib/f"],
    ]


def test_metadata_of_copies(make: Make, tmp_path: Path) -> None:
    context = tmp_path / "context"
    write_files(context, {"d/x": "x", "d/sub/y": "y"})
    (context / "d").chmod(0o700)
    (context / "d/sub").chmod(0o2750)
    os.chown(context / "d/x", 5, 6)
    (context / "d/x").chmod(0o4751)
    os.symlink("x", context / "d/l")
    os.link(context / "d/x", context / "d/z")
    os.mkfifo(context / "d/p")
    os.setxattr(context / "d/sub/y", "user.note", b"kept")
    built = make("COPY d /plain\nCOPY --chown=app --chmod=640 d /owned\nCOPY --chmod=u=rwX,go=rX d /sym")
    plain, owned, symbolic = built.layers
    assert {p: (oct(e.mode), e.uid, e.gid) for p, e in plain.items()} == {
        "plain": ("0o755", 0, 0),
        "plain/l": ("0o777", 0, 0),
        "plain/p": ("0o644", 0, 0),
        "plain/sub": ("0o2750", 0, 0),
        "plain/sub/y": ("0o644", 0, 0),
        "plain/x": ("0o4751", 0, 0),
        "plain/z": ("0o4751", 0, 0),
    }
    assert (plain["plain/z"].kind, plain["plain/z"].link) == ("hardlink", "plain/x")
    assert plain["plain/x"].mtime == 1_600_000_000
    assert plain["plain/sub/y"].xattrs == {"user.note": b"kept"}
    assert {(oct(e.mode), e.uid, e.gid) for p, e in owned.items() if e.kind != "symlink"} == {("0o640", 1000, 1001)}
    assert {p.removeprefix("sym"): oct(e.mode) for p, e in symbolic.items() if e.kind != "symlink"} == {
        "": "0o755",
        "/p": "0o644",
        "/sub": "0o755",
        "/sub/y": "0o644",
        "/x": "0o755",
        "/z": "0o755",
    }


def test_copies_from_a_stage_keep_their_owner(make: Make) -> None:
    built = make(
        f"FROM {BASE} AS one\nRUN mkdir /d && touch /d/f && chown 7:8 /d/f && ln /d/f /d/g\n"
        f"FROM {BASE}\nCOPY --from=one /d /a\nCOPY --from=ONE --chown=9 /d/f /b\nCOPY --from=0 /d/f /c\nCOPY --from={BASE} /etc/group /g"
    )
    assert (built.file("a/f").uid, built.file("a/f").gid, built.file("a/g").kind) == (7, 8, "hardlink")
    assert (built.file("b").uid, built.file("b").gid, built.file("c").uid) == (9, 9, 7)
    assert built.text("g").startswith("root")


def test_parents(make: Make) -> None:
    files = {"a/b/c.txt": "c", "a/d.txt": "d", "e/f.go": "f", "e/g/h.go": "h"}
    built = make(
        "COPY --parents a/b/c.txt a/d.txt /x/\nCOPY --parents a/./b/c.txt /y/\nCOPY --parents **/*.go /z/\nCOPY --parents a/*/c.txt /w/",
        files,
    )
    assert [sorted(layer) for layer in built.layers] == [
        ["x", "x/a", "x/a/b", "x/a/b/c.txt", "x/a/d.txt"],
        ["y", "y/b", "y/b/c.txt"],
        ["z", "z/e", "z/e/f.go", "z/e/g", "z/e/g/h.go"],
        ["w", "w/a", "w/a/b", "w/a/b/c.txt"],
    ]
    assert built.history[-1] == ("COPY --parents a/*/c.txt /w/ # buildkit", False)
    with pytest.raises(DockerfileError, match="is not in the build context"):
        make("COPY --parents a/nothing /x/", files)


def test_exclude(make: Make) -> None:
    files = {"s/a.txt": "a", "s/b.md": "b", "s/t/c.txt": "c", "s/t/keep.txt": "k", "hom1.txt": "1", "hom2.go": "2"}
    built = make(
        "COPY --exclude=*.txt s /a/\nCOPY --exclude=**/*.txt --exclude=!t/keep.txt s /b/\nCOPY --exclude=*.txt hom* /c/",
        files,
    )
    assert [sorted(layer) for layer in built.layers] == [
        ["a", "a/b.md", "a/t", "a/t/c.txt", "a/t/keep.txt"],
        ["b", "b/b.md", "b/t", "b/t/keep.txt"],
        ["c", "c/hom2.go"],
    ]
    text = "COPY --exclude=*.txt s /a/"
    make(text, files)
    assert make(text, {**files, "s/a.txt": "changed"}).cached[-1] is True  # what is left out is not in the key
    assert make(text, {**files, "s/b.md": "changed"}).cached[-1] is False


def test_link_makes_a_layer_of_its_own(make: Make) -> None:
    built = make("RUN mkdir /d && chmod 700 /d\nCOPY --link f /d/f\nRUN cat /d/f > /seen", {"f": "x"})
    assert built.layers[1]["d"].mode == 0o755
    assert built.text("seen") == "x"


def test_heredocs(make: Make) -> None:
    built = make(
        """ARG NAME=value
COPY <<A <<"B" <<-C /d/
$NAME "quoted"
A
$NAME
B
	\ttabs
	C
COPY --chmod=755 <<EOF /file
#!/bin/sh
EOF
RUN <<EOF
echo one > /one
echo "$NAME" >> /one
EOF
RUN <<EOF
#!/bin/awk -f
BEGIN { print "awk" > "/two" }
EOF
RUN cat <<X > /three && cat <<Y >> /three
x $NAME
X
y
Y
"""
    )
    assert built.text("d/A") == 'value "quoted"\n'
    assert built.text("d/B") == "$NAME\n"
    assert built.text("d/C") == "tabs\n"
    assert (built.file("file").mode, built.file("d/A").mode) == (0o755, 0o644)
    assert built.text("one") == "one\nvalue\n"
    assert built.text("two") == "awk\n"
    assert built.text("three") == "x value\ny\n"
    assert "dev" not in built.paths()
    assert built.history[-5][0] == "COPY <<A <<B <<C /d/ # buildkit"


def test_ignore_files(make: Make, tmp_path: Path) -> None:
    files = {"a.txt": "a", "b.md": "b", "keep/x": "x", "keep/y": "y", ".dockerignore": "*\n!a.txt\n!keep/x\n"}
    assert sorted(make("COPY . /c/", files).layers[-1]) == ["c", "c/a.txt", "c/keep", "c/keep/x"]
    own = {**files, "Dockerfile.dockerignore": "*.txt\n.dockerignore\n"}
    built = make("COPY . /c/", own)
    assert "c/b.md" in built.layers[-1]
    assert "c/a.txt" not in built.layers[-1]
    os.unlink(tmp_path / "context/Dockerfile.dockerignore")
    with pytest.raises(DockerfileError, match="is not in the build context"):
        make("COPY b.md /c/", files)


# --- stages and contexts --------------------------------------------------------------------------------


def test_triggers_of_a_base(make: Make, builder: Builder, tmp_path: Path) -> None:
    make(
        "ONBUILD COPY f /onbuild\nONBUILD RUN cat /onbuild > /ran\nONBUILD ENV X=1", {"f": "x"}, tags=("test/onbuild",)
    )
    built = make("FROM test/onbuild\nRUN test $X = 1\nCMD x", {"f": "mine"})
    assert built.text("ran") == "mine"
    assert "OnBuild" not in built.config
    assert [e.step.instruction for e in built.events if hasattr(e, "cached")][1] == "ONBUILD COPY f /onbuild"
    again = make("FROM test/onbuild AS a\nFROM a\nRUN true", {"f": "mine"})
    assert len([t for t, _ in again.history if t.startswith("COPY f")]) == 1


def test_triggers_of_a_stage_and_what_they_need(make: Make) -> None:
    built = make(
        f"FROM {BASE} AS tools\nRUN echo tool > /tool\nFROM {BASE} AS base\nONBUILD COPY --from=tools /tool /got\n"
        "FROM base\nRUN cat /got > /seen"
    )
    assert built.text("seen") == "tool\n"


def test_only_what_the_target_needs_is_built(make: Make) -> None:
    text = (
        f"FROM {BASE} AS a\nRUN echo a > /f\nFROM {BASE} AS broken\nRUN exit 1\nFROM {BASE} AS c\nCOPY --from=a /f /f"
    )
    assert make(text).text("f") == "a\n"
    for target in ("A", "0", "stage-0"):
        assert make(text, target=target).layers[-1].keys() == {"f"}
    with pytest.raises(InvalidInput, match="no stage 'none'") as caught:
        make(text, target="none")
    assert "a, broken, c" in str(caught.value.hint)


def test_named_contexts(make: Make, builder: Builder, tmp_path: Path) -> None:
    other = tmp_path / "other"
    write_files(other, {"o": "other", "skipped": "x", ".dockerignore": "skipped\n.dockerignore\n"})
    built = make(
        "FROM base AS a\nCOPY --from=more . /c/\nRUN --mount=from=more,target=/m ls /m > /list\nRUN --mount=from=img,target=/i head -n1 /i/etc/passwd > /p",
        contexts={"more": str(other), "base": f"docker-image://{BASE}", "img": f"docker-image://{BASE}"},
    )
    assert sorted(built.layers[0]) == ["c", "c/o"]
    assert built.text("list") == "o\n"
    replaced = make(f"FROM {BASE} AS dep\nRUN exit 1\nFROM {BASE}\nCOPY --from=dep /o /o", contexts={"dep": str(other)})
    assert replaced.text("o") == "other"
    files = make("FROM files\nENV A=1", contexts={"files": str(other)})
    assert sorted(files.layers[0]) == ["o"]
    for value in ("/nowhere/at/all", "ftp://x/y"):
        with pytest.raises((InvalidInput, Unsupported, DockerfileError)):
            make("COPY --from=bad . /", contexts={"bad": value})


@pytest.mark.peer("skopeo")
def test_a_context_that_is_an_oci_layout(make: Make, builder: Builder, tmp_path: Path) -> None:
    layout = tmp_path / "layout"
    image = builder.store.images.get(BASE)
    source = f"oci:{builder.store.root}/oci:{BASE}:latest"
    subprocess.run(["skopeo", "copy", "-q", source, f"oci:{layout}:v1"], check=True)
    built = make(
        "FROM from-layout\nRUN head -n1 /etc/passwd > /p", contexts={"from-layout": f"oci-layout://{layout}:v1"}
    )
    assert built.text("p").startswith("root")
    assert image.digest in builder.store.images.list()[0].digest or built.config["Cmd"] == ["sh"]
    shutil.rmtree(layout / "blobs")
    with pytest.raises((DockerfileError, NotFound, Exception), match=r"layout|No such file"):
        make("FROM from-layout\nRUN true # x", contexts={"from-layout": f"oci-layout://{layout}:v1"})


def test_emulators_are_found_by_what_the_kernel_says(tmp_path: Path) -> None:
    config = ImageConfig.scratch(Platform("linux", "vax"))
    with pytest.raises(Unsupported, match="this machine is"):
        check_runnable(config, tmp_path)
    entry = tmp_path / "qemu-vax"
    entry.write_text("enabled\ninterpreter /usr/bin/qemu-vax\nflags: F\n")
    check_runnable(config, tmp_path)
    entry.write_text("enabled\ninterpreter /usr/bin/qemu-vax\nflags: \n")
    with pytest.raises(Unsupported, match="without the flag F"):
        check_runnable(config, tmp_path)
    entry.write_text("disabled\n")
    with pytest.raises(Unsupported):
        check_runnable(config, tmp_path)


def test_a_platform_that_cannot_run_is_refused(make: Make) -> None:
    built = make("FROM --platform=linux/s390x scratch\nCOPY f /f", {"f": "x"}, platforms=("linux/s390x",))
    assert built.document["architecture"] == "s390x"
    with pytest.raises(DockerfileError, match="this machine is"):
        make('FROM scratch\nRUN ["/x"]', platforms=("linux/vax",))  # no emulator of it exists


# --- results --------------------------------------------------------------------------------------------


def test_users_of_the_image_in_workdir_and_run(make: Make) -> None:
    built = make("USER app\nWORKDIR /home/app/x\nRUN id -u > /tmp/id && id -g >> /tmp/id && id -G >> /tmp/id")
    assert {(e.uid, e.gid) for p, e in built.layers[0].items() if p.startswith("home")} == {(1000, 1001)}
    assert built.text("tmp/id").split() == ["1000", "1001", "1001", "1002"]


def test_whiteouts_and_replaced_directories(make: Make) -> None:
    built = make(
        "RUN mkdir -p /d/sub && touch /d/a /d/sub/b /gone\nRUN rm /gone /d/a && rm -r /d/sub && mkdir /d/sub && touch /d/sub/new\n"
        "RUN chmod 755 /d\nRUN rm -rf /d && echo f > /d"
    )
    assert sorted(built.layers[1]) == [".wh.gone", "d", "d/.wh.a", "d/sub", "d/sub/.wh.b", "d/sub/new"]
    assert built.layers[2] == {}
    assert built.layers[3].keys() == {"d"}


def test_equal_input_gives_an_equal_digest(make: Make, builder: Builder, tmp_path: Path) -> None:
    """On another data root, without a cache, later: the image's digest is the same."""
    files = {"f": "x", "d/g": "y"}
    text = "WORKDIR /w/deep\nCOPY . .\nCOPY <<E /h\ntext\nE\nENV A=1\nADD f /made/here/\nRUN true\nCMD x"
    first = make(text, files)
    other = Builder(tmp_path / "root")
    other.base(tmp_path / "base")
    assert other.store.images.get(BASE).digest == builder.store.images.get(BASE).digest or "RUN" in text
    assert other.store.images.config(other.store.images.get(BASE)).document["rootfs"] is not None
    scratch = text.replace("RUN true\n", "").replace("WORKDIR", "FROM scratch\nWORKDIR", 1)
    assert make(scratch, files).digest == other(_copy(tmp_path, scratch, files)).digest
    assert make(text, files, no_cache=True).digest == first.digest
    other.service.close()
    other.store.close()


def _copy(tmp_path: Path, text: str, files: dict[str, str]) -> Path:
    folder = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "context", folder, symlinks=True)
    write_files(folder, {**files, "Dockerfile": text})
    return folder


def test_source_date_epoch(make: Make) -> None:
    """Times are no later than it says, whenever the files were written."""
    files = {"f": "x"}
    text = "FROM test/busybox\nARG SOURCE_DATE_EPOCH\nCOPY f /f\nRUN echo $SOURCE_DATE_EPOCH > /e\nWORKDIR /w\nCMD x"
    args = {"SOURCE_DATE_EPOCH": "1234567890"}
    first = make(text, files, build_args=args, no_cache=True)
    assert first.document["created"] == "2009-02-13T23:31:30Z"
    assert {entry.mtime for layer in first.layers for entry in layer.values()} == {1234567890}
    assert make(text, files, build_args=args, no_cache=True).digest == first.digest
    assert first.text("e") == "1234567890\n"
    other = make(text, files, build_args={"SOURCE_DATE_EPOCH": "1234567891"})
    assert other.digest != first.digest
    with pytest.raises(InvalidInput, match="invalid SOURCE_DATE_EPOCH"):
        make(text, files, build_args={"SOURCE_DATE_EPOCH": "yesterday"})


def test_created_is_the_newest_file(make: Make) -> None:
    built = make("FROM scratch\nCOPY f /f\nENV A=1", {"f": "x"})
    assert built.document["created"] == "2020-09-13T12:26:40Z"
    assert [entry["created"] for entry in built.document["history"]] == ["2020-09-13T12:26:40Z"] * 2


# --- what the cache goes by -----------------------------------------------------------------------------


def test_a_pulled_image_answers_for_no_step(make: Make, builder: Builder) -> None:
    """BD-05: an image whose history looks like this build's is not in the cache."""
    text = "RUN echo from-here > /who"
    first = make(text, tags=("test/lookalike",))
    with builder.store.records.write() as db:
        db.execute("DELETE FROM cache")
    again = make(text)
    assert again.cached[-1] is False
    assert again.history == first.history


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("USER root", "USER app"),
        ("WORKDIR /a", "WORKDIR /b"),
        ("ENV A=1", "ENV A=2"),
        ("ARG B=1", "ARG B=2"),
        ('SHELL ["/bin/sh", "-c"]', 'SHELL ["/bin/sh", "-ec"]'),
    ],
)
def test_what_a_step_sees_is_in_its_key(make: Make, before: str, after: str) -> None:
    """BD-05: every field of the config that reaches a step."""
    script = "RUN id > /tmp/out; pwd >> /tmp/out; env >> /tmp/out"
    make(f"{before}\n{script}")
    assert make(f"{before}\n{script}").cached[-1] is True
    assert make(f"{after}\n{script}").cached[-1] is False


def test_labels_and_commands_are_in_no_key(make: Make) -> None:
    make("LABEL a=1\nHEALTHCHECK CMD x\nRUN echo labels > /l")
    assert make("LABEL a=2\nHEALTHCHECK CMD y\nRUN echo labels > /l").cached[-1] is True


def test_no_cache_for_one_stage(make: Make) -> None:
    text = f"FROM {BASE} AS a\nRUN echo a > /a\nFROM {BASE} AS b\nCOPY --from=a /a /a\nRUN echo b > /b"
    make(text)
    built = make(text, no_cache_filter=("a",))
    assert built.reasons == {"RUN echo a > /a": "--no-cache-filter"}


# --- hostile contexts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"])
def test_links_to_the_host_are_not_read(make: Make, builder: Builder, tmp_path: Path, name: str) -> None:
    """BD-12."""
    (tmp_path / "canary").write_text(f"FROM {BASE}\nRUN echo canary\n")
    context = tmp_path / "context"
    write_files(context, {"Dockerfile": f"FROM {BASE}\nRUN true\n"})
    (context / name).unlink(missing_ok=True)
    for target in (str(tmp_path / "canary"), "../canary"):
        os.symlink(target, context / name)
        with pytest.raises(InvalidInput, match="leads out of the build context"):
            builder(context)
        os.unlink(context / name)


def test_links_in_a_context_stay_in_it(make: Make, tmp_path: Path) -> None:
    """BD-12: followed inside the context, or copied as links."""
    (tmp_path / "canary").write_text("host")
    context = tmp_path / "context"
    write_files(context, {"d/f": "inside", "tmp/x": "context's own tmp"})
    os.symlink(str(tmp_path / "canary"), context / "out")
    os.symlink("/tmp", context / "abs")
    os.symlink("d", context / "in")
    assert make("COPY in /i\nCOPY abs/x /x\nCOPY . /all/").text("x") == "context's own tmp"
    built = make("COPY in /i\nCOPY . /all/")
    assert built.text("i/f") == "inside"
    assert (built.file("all/out").kind, built.file("all/out").link) == ("symlink", str(tmp_path / "canary"))
    with pytest.raises(DockerfileError, match="is not in the build context"):
        make("COPY out /o")


def test_copying_through_links_of_the_image(make: Make, tmp_path: Path) -> None:
    """A link of the image leads inside the image, wherever it points."""
    built = make(
        f"RUN ln -s {tmp_path} /out && ln -s ../../../.. /up && ln -s loop /loop\nCOPY f /out/f\nCOPY f /up/g",
        {"f": "x"},
    )
    assert not (tmp_path / "f").exists()
    assert built.file(f"{str(tmp_path)[1:]}/f").content == b"x"
    assert built.file("g").content == b"x"
    with pytest.raises(DockerfileError, match="too many levels"):
        make("RUN ln -s loop /loop\nCOPY f /loop/x", {"f": "x"})


def test_nothing_of_the_host_is_in_a_step(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """BD-13."""
    monkeypatch.setenv("CANARY_OF_THE_HOST", "canary-value")
    built = make(
        "ENV CANARY_OF_THE_HOST\nRUN env > /env; cat /proc/*/environ > /all 2>/dev/null; true".replace(
            "ENV CANARY_OF_THE_HOST\n", ""
        )
    )
    assert b"canary-value" not in built.file("env").content
    assert b"canary-value" not in built.file("all").content


@pytest.mark.parametrize("name", ["../x", "a\nb", "x" * 65, "a b"])
def test_a_host_name_is_one(make: Make, name: str) -> None:
    """BD-10."""
    with pytest.raises(DockerfileError, match="no host name"):
        make("RUN true", build_args={"BUILDKIT_SANDBOX_HOSTNAME": name})


def test_the_host_name_of_a_step(make: Make) -> None:
    """Never the host's own: an empty one is the usual one."""
    for given, found in (("", "buildkitsandbox"), ("box.test", "box.test")):
        made = make("RUN hostname > /name", build_args={"BUILDKIT_SANDBOX_HOSTNAME": given}, no_cache=True)
        assert made.text("name").strip() == found
