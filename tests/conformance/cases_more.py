"""More Dockerfiles of the differential suite: corner cases of expansion, paths, metadata and ignore files, and files as projects write them."""

from __future__ import annotations

from tests.conformance.cases import CASES, Files

_SRC: Files = {
    "package.json": '{"name":"x"}',
    "src/index.js": "1",
    "src/lib/util.js": "2",
    "test/a_test.js": "3",
    "README.md": "#",
    "node_modules/m/index.js": "4",
    ".git/HEAD": "ref",
    "docker/entry.sh!": "#!/bin/sh\nexec \"$@\"\n",
}  # fmt: skip


def _ignored(*lines: str) -> tuple[str, Files]:
    return "FROM scratch\nCOPY . /\n", {**_SRC, ".dockerignore": "\n".join(lines) + "\n"}


MORE: dict[str, tuple[str, Files]] = {
    # words and variables
    "env-modifiers": (
        'FROM {base}\nENV A=1 B=\nENV C=${{A:-x}} D=${{B:-x}} E=${{N:-x$A}} F=${{A:+y}} G=${{B:+y}} H="$A-${{A}}" I=\'$A\' J=\\$A\n',
        {},
    ),
    "env-legacy": ("FROM {base}\nENV A  b c  d\nENV B $A\nENV C \"q r\" s\n", {}),
    "env-self": ("FROM {base}\nENV P=a\nENV P=$P:b Q=$P\nENV P=${{P}}:c Q=$P\n", {}),
    "env-quotes": ("FROM {base}\nENV A=\"a b\" B='c d' C=e\\ f D=\"g\\\"h\" E=i\"j k\"l F=''\n", {}),
    "env-over-arg": ("FROM {base}\nARG X=arg\nENV X=env\nRUN echo $X > /x\nARG X=again\nRUN echo $X > /y\n", {}),
    "arg-empty": ('FROM {base}\nARG E\nARG F=\nRUN echo "[$E][$F]" > /x\nENV G=a${{E}}b${{F}}c\n', {}),
    "arg-of-arg": ("ARG A=1\nARG B=${{A}}2\nFROM {base}\nARG B\nARG C=${{B}}3\nLABEL c=$C\n", {}),
    "label-words": ('FROM {base}\nLABEL a.b="x y" c=\'d\' "e f"=g\nLABEL multi="a\\\nb"\nLABEL old style value\nENV V=1\nLABEL v=$V\n', {}),
    "expose-forms": ("FROM {base}\nARG P=90\nEXPOSE 80 443/tcp 53/UDP $P 7000-7002/udp\n", {}),
    "volume-forms": ("FROM {base}\nENV D=/data\nVOLUME $D /x/ rel\n", {}),
    "stopsignal-variable": ("FROM {base}\nARG S=9\nSTOPSIGNAL $S\n", {}),
    "user-variable": ("FROM {base}\nENV U=app\nUSER $U:app\nRUN id -un > /tmp/x\n", {}),
    "workdir-chain": ("FROM {base}\nWORKDIR /a\nWORKDIR b\nWORKDIR ../c/\nWORKDIR ./d/./e\nRUN pwd > p\n", {}),
    "workdir-link": ("FROM {base}\nRUN mkdir /real && ln -s real /l\nWORKDIR /l/sub\nRUN touch here\n", {}),
    "workdir-there": ("FROM {base}\nRUN mkdir -m 700 /w && chown 1000 /w\nWORKDIR /w\n", {}),
    "workdir-root": ("FROM {base}\nWORKDIR /\nCOPY f /\n", {"f": "f"}),
    # commands
    "cmd-reset": ('FROM {base} AS a\nCMD ["x"]\nFROM a\nENTRYPOINT ["e"]\n', {}),
    "cmd-then-entrypoint": ('FROM {base}\nCMD ["x"]\nENTRYPOINT ["e"]\n', {}),
    "cmd-empty": ("FROM {base}\nCMD []\nENTRYPOINT []\n", {}),
    "cmd-not-json": ("FROM {base}\nCMD ['a', 'b']\n", {}),
    "cmd-spaces": ("FROM {base}\nCMD   echo   a   b\nENTRYPOINT exec top -b\n", {}),
    "healthcheck-all": ('FROM {base}\nHEALTHCHECK --interval=1m --timeout=2s --start-period=1h --retries=1 CMD ["a", "b"]\n', {}),
    "healthcheck-shell": ("FROM {base}\nSHELL [\"/bin/sh\", \"-x\", \"-c\"]\nHEALTHCHECK CMD curl -f x || exit 1\n", {}),
    "healthcheck-last": ("FROM {base}\nHEALTHCHECK CMD a\nHEALTHCHECK --retries=5 CMD b\n", {}),
    "shell-restored": ('FROM {base} AS a\nSHELL ["/bin/sh", "-ec"]\nFROM a\nRUN true\nCMD y\n', {}),
    "onbuild-chain": ("FROM {base} AS a\nONBUILD ENV A=1\nONBUILD WORKDIR /w\nONBUILD RUN echo $A > a\nFROM a AS b\nFROM b\nRUN pwd > /p\n", {}),
    # copies
    "copy-dot-slash": ("FROM {base}\nWORKDIR /w\nCOPY ./src ./\nCOPY src/. ./x/\nCOPY src/lib/ y\n", _SRC),
    "copy-link-in-context": ("FROM {base}\nRUN mkdir /d && ln -s d /e && ln -s /d /f\nCOPY README.md /e/\nCOPY README.md /f/x\n", _SRC),
    "copy-over-folder": ("FROM {base}\nRUN mkdir -p /t/src && touch /t/src/old && chmod 700 /t/src\nCOPY src /t/src\n", _SRC),
    "copy-question": ("FROM {base}\nCOPY READM?.md pack*.json /w/\n", _SRC),
    "copy-deep-star": ("FROM {base}\nCOPY */index.js /w/\n", _SRC),
    "copy-chown-group": ("FROM {base}\nCOPY --chown=app:extra README.md /a\nCOPY --chown=12:34 src /b\nCOPY --chown=app src/index.js /c/d/e\n", _SRC),
    "copy-from-number": ("FROM {base} AS a\nRUN mkdir /o && echo 1 > /o/f && ln -s f /o/l && ln /o/f /o/h\nFROM scratch\nCOPY --from=0 /o /p\n", {}),
    "copy-from-owner": ("FROM {base} AS a\nRUN mkdir /o && touch /o/f && chown -R 5:6 /o && chmod 4711 /o/f && chmod 1777 /o\nFROM {base}\nCOPY --from=a /o /q\nCOPY --from=a /o/f /r/\n", {}),
    "copy-from-star": ("FROM {base} AS a\nRUN mkdir /o && touch /o/a.so /o/b.so /o/c.a\nFROM {base}\nCOPY --from=a /o/*.so /lib2/\n", {}),
    "add-url-name": ("FROM {base}\nADD README.md /x/\nADD src/index.js src/lib /y/\n", _SRC),
    "copy-twice": ("FROM {base}\nCOPY README.md /a\nCOPY package.json /a\nCOPY README.md /a\n", _SRC),
    "copy-empty-folder": ("FROM {base}\nRUN mkdir -p /empty/in\nFROM scratch\nCOPY --from=0 /empty /e\n", {}),
    # ignore files
    "ignore-names": _ignored("node_modules", ".git", "*.md"),
    "ignore-exception": _ignored("*", "!src", "!package.json"),
    "ignore-deep": _ignored("**/*.js", "!src/lib/*.js"),
    "ignore-folder-exception": _ignored("src", "!src/lib"),
    "ignore-comment": _ignored("# c", "  test  ", "/docker/", "", "!README.md", "./.git"),
    "ignore-question": _ignored("?EADME.md", "s[a-r]c", "test/**"),
    "ignore-itself": _ignored("Dockerfile", ".dockerignore", "node_modules/*", "!node_modules/m"),
    "ignore-parent": _ignored("../x", "src/../test", ".git/**"),
    # steps
    "run-hard-links": ("FROM {base}\nRUN echo a > /a && ln /a /b && mkdir /d && ln /a /d/c\nRUN rm /b\nRUN ln /a /e\n", {}),
    "run-rename": ("FROM {base}\nRUN mkdir -p /d/s && touch /d/s/f\nRUN mv /d /e\nRUN mv /e/s/f /e/s/g\n", {}),
    "run-replace-kinds": ("FROM {base}\nRUN mkdir /x && touch /x/f /y && ln -s y /z\nRUN rm -r /x && touch /x && rm /y && mkdir /y && rm /z && touch /z\n", {}),
    "run-opaque": ("FROM {base}\nRUN mkdir /o && touch /o/a /o/b\nRUN rm -r /o && mkdir /o && touch /o/b /o/c\n", {}),
    "run-touch-only": ("FROM {base}\nRUN touch -d @1100000000 /etc/passwd\n", {}),
    "run-fifo": ("FROM {base}\nRUN mkfifo -m 600 /p && ln -s /nowhere /l && ln -s ../../.. /m\n", {}),
    "run-names": ("FROM {base}\nRUN touch '/a b' \"/q'uote\" '/ü' '/-dash' '/back\\slash'\n", {}),
    "run-umask": ("FROM {base}\nRUN umask 077 && mkdir /s && touch /s/f\nRUN umask 000 && mkdir /o && touch /o/f\n", {}),
    "run-user-files": ("FROM {base}\nRUN mkdir -m 777 /w\nUSER app\nRUN touch /w/f && mkdir /w/d\nUSER 1234\nRUN touch /w/g\nUSER 7:8\nRUN touch /w/h\n", {}),
    "run-json-variables": ('FROM {base}\nENV A=1\nRUN ["sh", "-c", "echo $A > /x"]\nRUN ["touch", "/$A"]\n', {}),
    "run-comment-inside": ("FROM {base}\nRUN echo a \\\n# a comment\n  b \\\n\n  c > /x\n", {}),
    "run-environment": ("FROM {base}\nARG B=2\nENV A=1\nUSER app\nRUN env | grep -v HOSTNAME | sort > /tmp/x\n", {}),
    # as projects write them
    "node-like": (
        "FROM {base} AS deps\nWORKDIR /app\nCOPY package.json ./\nRUN mkdir node_modules && echo m > node_modules/m\n"
        "FROM {base} AS build\nWORKDIR /app\nCOPY --from=deps /app/node_modules ./node_modules\nCOPY . .\nRUN cat src/*.js > bundle.js\n"
        "FROM {base}\nENV NODE_ENV=production PORT=3000\nWORKDIR /app\nCOPY --from=build --chown=app:app /app/bundle.js ./\n"
        'COPY docker/entry.sh /usr/local/bin/\nUSER app\nEXPOSE $PORT\nENTRYPOINT ["entry.sh"]\nCMD ["node", "bundle.js"]\n',
        {**_SRC, ".dockerignore": "node_modules\n.git\n"},
    ),
    "python-like": (
        "FROM {base}\nARG VERSION=3\nLABEL org.opencontainers.image.version=$VERSION\nENV PYTHONUNBUFFERED=1 \\\n    PATH=/venv/bin:$PATH\n"
        "WORKDIR /srv\nRUN set -eux; \\\n    mkdir -p /venv/bin; \\\n    printf '#!/bin/sh\\n' > /venv/bin/python; \\\n    chmod +x /venv/bin/python\n"
        "COPY src/ /srv/\nVOLUME /srv/media\nHEALTHCHECK --interval=10s CMD wget -q -O- http://localhost/ || exit 1\nCMD [\"python\", \"-m\", \"app\"]\n",
        _SRC,
    ),
    "go-like": (
        "FROM --platform=$BUILDPLATFORM {base} AS build\nARG TARGETOS TARGETARCH\nWORKDIR /src\nCOPY . .\n"
        "RUN mkdir /out && echo \"$TARGETOS\" > /out/app && chmod 755 /out/app\nFROM scratch\nCOPY --from=build /etc/passwd /etc/passwd\nCOPY --from=build /out/app /app\nUSER app\nENTRYPOINT [\"/app\"]\n",
        _SRC,
    ),
    "nginx-like": (
        "FROM {base}\nRUN mkdir -p /etc/nginx/conf.d /var/cache/nginx /var/log/nginx \\\n && ln -sf /dev/stdout /var/log/nginx/access.log \\\n && ln -sf /dev/stderr /var/log/nginx/error.log\n"
        "COPY README.md /usr/share/nginx/html/index.html\nADD src /usr/share/nginx/html/static/\nSTOPSIGNAL SIGQUIT\nEXPOSE 80\nCMD [\"nginx\", \"-g\", \"daemon off;\"]\n",
        _SRC,
    ),
}  # fmt: skip

ALL: dict[str, tuple[str, Files]] = {**CASES, **MORE}
