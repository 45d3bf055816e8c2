"""The Dockerfiles of the differential suite. `{base}` is a busybox image that both sides build from the same files."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile

STAMP = 1_600_000_000  # every file's time


def archive(*names: str) -> bytes:
    """A tar of small files, for ADD."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.mtime, info.mode, info.uid, info.gid = STAMP, 0o640, 3, 4
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            data = b"" if name.endswith("/") else name.encode()
            info.mode = 0o750 if name.endswith("/") else 0o640
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


_TREE = {"d/a": "a", "d/e/b": "b", "f.txt": "f", "g.txt": "gg", "x y": "blank", "d/run.sh!": "#!/bin/sh\n"}
_TAR = archive("t/", "t/f", "t/g", "top")
_ARCHIVES: dict[str, str | bytes] = {
    "a.tar": _TAR,
    "b.bin": gzip.compress(_TAR, mtime=0),
    "c.data": bz2.compress(_TAR),
    "e.x": lzma.compress(_TAR),
    "no.tar": "text",
}
Files = dict[str, str | bytes]

# name -> (Dockerfile, files). A file whose name ends with "!" is executable.
CASES: dict[str, tuple[str, Files]] = {
    "copy-dir": ("FROM {base}\nCOPY d /new\n", _TREE),
    "copy-dir-slash": ("FROM {base}\nCOPY d /new/\n", _TREE),
    "copy-dir-existing": ("FROM {base}\nRUN mkdir -m 700 /new\nCOPY d /new\n", _TREE),
    "copy-file": ("FROM {base}\nCOPY f.txt /file\n", _TREE),
    "copy-file-dir": ("FROM {base}\nCOPY f.txt /dir/sub/\n", _TREE),
    "copy-several": ("FROM {base}\nCOPY f.txt g.txt d /dir/\n", _TREE),
    "copy-wildcard": ("FROM {base}\nCOPY *.txt /dir/\n", _TREE),
    "copy-wildcard-class": ("FROM {base}\nCOPY [fx]*.tx? /dir/\n", _TREE),
    "copy-wildcard-dirs": ("FROM {base}\nCOPY d* /dir/\n", _TREE),
    "copy-all": ("FROM scratch\nCOPY . /\n", _TREE),
    "copy-json": ('FROM {base}\nCOPY ["x y", "/z z"]\n', _TREE),
    "copy-workdir": ("FROM {base}\nWORKDIR /w\nCOPY f.txt .\nCOPY f.txt sub/\nCOPY f.txt name\n", _TREE),
    "copy-dotdot": ("FROM {base}\nCOPY ../../f.txt /x/../y\n", _TREE),
    "copy-absolute": ("FROM {base}\nCOPY /d/e /e\n", _TREE),
    "copy-over-link": ("FROM {base}\nCOPY f.txt /link/f\nCOPY d /link\n", _TREE),
    "copy-replace-file": ("FROM {base}\nRUN echo old > /f.txt\nCOPY f.txt /\n", _TREE),
    "copy-same-again": ("FROM {base}\nCOPY f.txt /\nCOPY f.txt /\n", _TREE),
    "copy-chown-number": ("FROM {base}\nCOPY --chown=12:34 d /d\nCOPY --chown=12 f.txt /deep/er/f\n", _TREE),
    "copy-chown-name": ("FROM {base}\nCOPY --chown=app d /d\nCOPY --chown=app:extra f.txt /f\n", _TREE),
    "copy-chmod": ("FROM {base}\nCOPY --chmod=640 f.txt /f\n", _TREE),
    "copy-executable": ("FROM {base}\nCOPY d/run.sh /run.sh\n", _TREE),
    "copy-from-stage": (
        "FROM {base} AS One\nRUN mkdir /o && echo x > /o/f && chown 5:6 /o/f && ln -s f /o/l\nFROM {base}\nCOPY --from=one /o /p\nCOPY --from=0 /o/f /q/\n",
        {},
    ),
    "copy-from-chown": (
        "FROM {base} AS one\nRUN echo x > /f && chown 5:6 /f\nFROM {base}\nCOPY --from=one --chown=7:8 /f /g\n",
        {},
    ),
    "copy-from-link": (
        "FROM {base} AS one\nRUN mkdir /r && echo x > /r/f && ln -s r /s\nFROM {base}\nCOPY --from=one /s /t\nCOPY --from=one /s/f /u\n",
        {},
    ),
    "add-tars": ("FROM {base}\nADD a.tar /a/\nADD b.bin /b/\nADD c.data /c/\nADD e.x /e\nADD no.tar /n/\n", _ARCHIVES),
    "add-tar-chown": ("FROM {base}\nADD --chown=9:10 a.tar /a/\n", _ARCHIVES),
    "add-tar-over": ("FROM {base}\nRUN mkdir -p /t && echo old > /t/f && touch /t/keep\nADD a.tar /\n", _ARCHIVES),
    "add-file-dir": ("FROM {base}\nADD f.txt d /x/\n", _TREE),
    "run-shell": ("FROM {base}\nRUN echo hello > /x && mkdir /y\n", {}),
    "run-exec": ('FROM {base}\nRUN ["touch", "/a b"]\n', {}),
    "run-nothing": ("FROM {base}\nRUN true\n", {}),
    "run-delete": ("FROM {base}\nRUN mkdir -p /a/b && touch /a/b/c /a/d\nRUN rm /a/d && rm -r /a/b\n", {}),
    "run-recreate": (
        "FROM {base}\nRUN mkdir -p /a && touch /a/old /a/both\nRUN rm -r /a && mkdir /a && touch /a/both /a/new\n",
        {},
    ),
    "run-chmod": ("FROM {base}\nRUN mkdir /a && touch /a/f\nRUN chmod 700 /a\nRUN chown 3:4 /a/f\n", {}),
    "run-unchanged": ("FROM {base}\nRUN mkdir /a && chmod 700 /a\nRUN chmod 755 /a && chmod 700 /a\n", {}),
    "run-links": ("FROM {base}\nRUN echo x > /a && ln /a /b && ln -s /a /c && mkfifo /p\n", {}),
    "run-setuid": ("FROM {base}\nRUN touch /s && chmod 6755 /s && mkdir /t && chmod 1777 /t\n", {}),
    "run-user": ("FROM {base}\nUSER app\nRUN touch /tmp/f && id > /tmp/id\nUSER 7:8\nRUN id > /tmp/id2\n", {}),
    "run-arg": ("FROM {base}\nARG A=1\nARG B\nRUN echo $A$B > /x\n", {}),
    "run-continued": ("FROM {base}\nRUN echo one \\\n # comment\n two > /x\n", {}),
    "run-mounts": (
        "FROM {base} AS s\nRUN echo s > /s\nFROM {base}\nRUN --mount=target=/c cat /c/f.txt > /x\nRUN --mount=type=tmpfs,target=/t touch /t/a\n"
        "RUN --mount=from=s,target=/m/n cp /m/n/s /y\nRUN --mount=type=cache,target=/k/l touch /k/l/m\n",
        _TREE,
    ),
    "workdir": ("FROM {base}\nWORKDIR /a/b\nWORKDIR c\nWORKDIR /tmp\nWORKDIR ../d\n", {}),
    "workdir-user": ("FROM {base}\nUSER app\nWORKDIR /home/app/x\n", {}),
    "workdir-variable": ("FROM {base}\nENV D=/v\nWORKDIR $D/$UNSET\n", {}),
    "env": ("FROM {base}\nENV A=1 B=\"two words\" C=$A\nENV D ${{A:-x}}y ${{E:+z}}\nENV A=2 F=\\$A G='$A'\n", {}),
    "label": ('FROM {base}\nLABEL a=1 "b c"="d e" f=$PATH\nLABEL a=2\n', {}),
    "expose": ("FROM {base}\nENV P=90\nEXPOSE 80 443/tcp 53/udp $P\nEXPOSE 7000-7002\n", {}),
    "volume": ('FROM {base}\nVOLUME /a /b\nVOLUME ["/c d"]\nRUN mkdir -p /a && touch /a/f\n', {}),
    "cmd": ('FROM {base}\nCMD echo hi\nFROM {base}\nCMD ["a", "b\\"c"]\n', {}),
    "entrypoint": ('FROM {base}\nENTRYPOINT ["e"]\n', {}),
    "entrypoint-cmd": ('FROM {base}\nCMD ["c"]\nENTRYPOINT e f\n', {}),
    "shell": ('FROM {base}\nSHELL ["/bin/sh", "-ec"]\nRUN true\nCMD x\nENTRYPOINT y\n', {}),
    "stopsignal": ("FROM {base}\nSTOPSIGNAL SIGINT\n", {}),
    "maintainer": ("FROM {base}\nMAINTAINER Me <me@x>\n", {}),
    "healthcheck": ("FROM {base}\nHEALTHCHECK --interval=5s --retries=2 CMD true\n", {}),
    "healthcheck-none": ("FROM {base}\nHEALTHCHECK NONE\n", {}),
    "onbuild": ("FROM {base}\nONBUILD RUN touch /x\nONBUILD COPY . /y\n", {}),
    "onbuild-stage": ("FROM {base} AS a\nONBUILD RUN touch /x\nFROM a\nRUN touch /y\n", {}),
    "user": ("FROM {base}\nUSER 12:34\nUSER app\n", {}),
    "arg-scopes": (
        'ARG V=outer\nFROM {base} AS a\nARG V\nENV W=$V\nARG X=${{V}}1\nFROM a\nRUN echo $V$W$X > /x\nFROM {base}\nCOPY --from=1 /x /\nRUN echo "[$V]" > /y\n',
        {},
    ),
    "arg-from": ('ARG NAME={base}\nFROM ${{NAME}}\nARG TARGETARCH\nRUN test -n "$TARGETARCH"\n', {}),
    "escape": ("# escape=`\nFROM {base}\nRUN echo a `\n b > /x\nENV A=`$X\n", {}),
    "scratch": ("FROM scratch\nENV A=1\nWORKDIR /w\nCOPY f.txt .\n", _TREE),
    "stages-by-name": ("FROM {base} AS a\nRUN touch /a\nFROM a AS b\nRUN touch /b\nFROM b\nRUN touch /c\n", {}),
}
