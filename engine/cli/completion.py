"""`completion bash|zsh|fish`, and what the shells' functions ask: verbs, flags, containers, images, volumes, networks.

Flags and commands of a noun are read from their own help, so that there is one list of each. Names come straight out of the
records, read-only and without opening an engine: a key press must not wait for one.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path

from engine.cli.common import read
from engine.errors import EngineError, InvalidInput

_BASH = """# workbench completion for bash: eval "$(workbench completion bash)"
_workbench() {
    local words=("${COMP_WORDS[@]:1:COMP_CWORD}") line current reply
    # Readline parts words at ":" (image:tag, container:path); what is left of it is put together again.
    current="${COMP_LINE:0:COMP_POINT}"; current="${current##* }"
    words=(); for line in ${COMP_LINE:0:COMP_POINT}; do words+=("$line"); done
    [[ "${COMP_LINE:COMP_POINT-1:1}" == " " ]] && words+=("")
    COMPREPLY=()
    while IFS= read -r line; do
        [[ "$line" == ":files" ]] && { compopt -o default 2>/dev/null; continue; }
        [[ "$line" == *[=:] ]] && compopt -o nospace 2>/dev/null
        [[ "$current" == *:* ]] && line="${line#"${current%"${current##*:}"}"}"
        COMPREPLY+=("$line")
    done < <("${words[0]}" __complete "${words[@]:1}" 2>/dev/null)
}
complete -F _workbench workbench
"""
_ZSH = """#compdef workbench
# workbench completion for zsh: workbench completion zsh > "${fpath[1]}/_workbench", or eval "$(workbench completion zsh)"
_workbench() {
    local -a lines found
    lines=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    for line in $lines; do
        [[ "$line" == ":files" ]] && { _files; continue }
        [[ -n "$line" ]] && found+=("$line")
    done
    (( $#found )) && compadd -S '' -q -a found
}
compdef _workbench workbench
"""
_FISH = """# workbench completion for fish: workbench completion fish | source
function __workbench_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in ($words[1] __complete $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c workbench -f -a '(__workbench_complete)'
"""
_SHELLS = {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}
# What the words behind a verb name: c containers, i images, v volumes, n networks, f files; the last letter goes on.
_ARGUMENTS = {
    **dict.fromkeys(
        ("attach", "diff", "export", "kill", "logs", "pause", "port", "restart", "rm", "start", "stats", "stop", "top", "unpause",
         "update", "wait", "rename", "exec", "commit", "drift"), "c"),
    **dict.fromkeys(("run", "create", "history", "push", "pull", "rmi", "save", "tag", "verify", "manifest inspect", "referrers"), "i"),
    "cp": "C", "inspect": "a", "build": "f", "load": "f", "import": "f", "clone": "-", "why": "f", "up": "f",
    "image inspect": "i", "image rm": "i", "image ls": "i", "image history": "i", "image push": "i", "image pull": "i", "image save": "i",
    "image tag": "i", "volume inspect": "v", "volume rm": "v", "network inspect": "n", "network rm": "n", "network connect": "nc",
    "network disconnect": "nc",
}  # fmt: skip
_ONCE = {
    "run",
    "create",
    "exec",
    "rename",
    "commit",
    "history",
    "push",
    "pull",
    "verify",
    "top",
    "port",
    "attach",
    "export",
    "diff",
}
# What the value of a flag names.
_VALUES = {
    "--network": "n", "--net": "n", "--volumes-from": "c", "--volume": "V", "-v": "V", "--file": "f", "-f": "f", "--env-file": "f",
    "--output": "f", "-o": "f", "--input": "f", "-i": "f", "--cidfile": "f", "--root": "f", "--iidfile": "f", "--tls-cert": "f",
}  # fmt: skip
_FORMATS = ("json", "table")
_NOUNS = ("builder", "builds", "compose", "container", "context", "image", "manifest", "network", "system", "volume")


def cmd_completion(root: Path, args: list[str]) -> int:
    parsed = read(
        args, "completion SHELL", f"Print the completion of a shell: {', '.join(_SHELLS)}", [], minimum=1, maximum=1
    )
    if parsed is None:
        return 0
    if parsed.args[0] not in _SHELLS:
        raise InvalidInput(f"no completion for {parsed.args[0]!r}", hint=f"there is one for {', '.join(_SHELLS)}")
    print(_SHELLS[parsed.args[0]], end="")
    return 0


def complete(root: Path, words: Sequence[str]) -> list[str]:
    """What the last word may become; ":files" stands for files. `words` are those behind `workbench`."""
    *before, last = words or [""]
    while before and before[0].startswith("-"):  # the program's own flags
        takes_value = before[0] in ("--root", "--host", "-H")
        if before[0] == "--root" and len(before) > 1:
            root = Path(before[1])
        before = before[2 if takes_value else 1 :]
    found = _candidates(root, before, last)
    return [one for one in found if one.startswith(last) or one == ":files"]


def _candidates(root: Path, before: list[str], last: str) -> list[str]:
    from engine.cli.main import GLOBAL, VERBS

    if not before:
        return [f"--{flag.name}" for flag in GLOBAL] if last.startswith("-") else [*VERBS, ":files"]
    verb, rest = before[0], before[1:]
    if verb not in VERBS:
        return []
    if verb == "completion":
        return list(_SHELLS)
    if verb in _NOUNS:
        inner = [word for word in rest if not word.startswith("-")]
        if not inner:
            return _commands(root, [verb])
        kind = inner[0]
        verb, rest = f"{verb} {kind}", rest[rest.index(kind) + 1 :]
        if verb.startswith("container ") and kind not in ("ls", "inspect", "prune"):
            verb = kind  # the same verb without its noun
        elif verb == "container inspect":
            return _names(root, "c")
    if rest and rest[-1] in _VALUES and not (rest[-1] in ("-f", "-i", "-v") and not _takes_value(root, verb, rest[-1])):
        return _names(root, _VALUES[rest[-1]], last)
    if rest and rest[-1] == "--format":
        return list(_FORMATS)
    if rest and rest[-1] == "--filter":
        return _filters(verb)
    if last.startswith("-"):
        return _flags(root, verb)
    positional = _positional(root, verb, rest)
    if verb in _ONCE and positional:
        return [":files"]
    kinds = _ARGUMENTS.get(verb, "")
    return _names(root, kinds[min(positional, len(kinds) - 1)], last) if kinds else []


def _positional(root: Path, verb: str, rest: Sequence[str]) -> int:
    count, skip = 0, False
    for word in rest:
        if skip:
            skip = False
        elif word.startswith("-"):
            skip = "=" not in word and _takes_value(root, verb, word)
        else:
            count += 1
    return count


def _help(verb: str) -> str:
    """What `--help` of a verb prints."""
    from importlib import import_module

    from engine.cli.main import VERBS

    words = verb.split()
    command: Callable[[Path, list[str]], int] = getattr(
        import_module(f"engine.cli.{VERBS[words[0]][0]}"), f"cmd_{words[0]}"
    )
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(EngineError):
        command(Path(), [*words[1:], "--help"])
    return out.getvalue()


_FLAG = re.compile(r"^ +(?:(-\w), )?\s*(--[\w-]+)(?: (\w+))?(?:   |$)", re.MULTILINE)


def _flags(root: Path, verb: str) -> list[str]:
    return [match[2] for match in _FLAG.finditer(_help(verb))]


def _filters(verb: str) -> list[str]:
    """`key=` of what the help of `--filter` names."""
    line = re.search(r"--filter \w+ +(.*)", _help(verb))
    text = line[1] if line else ""
    keys = re.findall(r"([a-z][\w-]*!?)=", text) or text.partition(": ")[2].split(", ")
    return [f"{key}=" for key in keys if key]


def _takes_value(root: Path, verb: str, flag: str) -> bool:
    return any(flag in (match[1], match[2]) and bool(match[3]) for match in _FLAG.finditer(_help(verb)))


def _commands(root: Path, words: Sequence[str]) -> list[str]:
    text = _help(words[0])
    if match := re.match(r"Usage:  workbench \w+ \[(.+ \| .+)\] \[OPTIONS\]", text):  # `builds [ls | show N | …]`
        return [part.split()[0] for part in match[1].split(" | ")]
    listed = text.partition("Commands:\n")[2].partition("\n\n")[0]
    return re.findall(r"^  ([a-z][\w-]*)", listed, re.MULTILINE)


# --- names -----------------------------------------------------------------------------------------------


def _names(root: Path, kind: str, last: str = "") -> list[str]:
    if kind == "f":
        return [":files"]
    if kind == "c":
        return _read(root, "SELECT name FROM containers ORDER BY name")
    if kind == "n":
        return _read(root, "SELECT name FROM networks ORDER BY name")
    if kind == "i":
        return _images(root)
    if kind == "v":
        return _volumes(root)
    if kind == "V":  # NAME:PATH or a folder of the host
        return [":files"] if last.startswith(("/", ".", "~")) else [f"{name}:" for name in _volumes(root)]
    if kind == "C":  # CONTAINER:PATH or a file of the host
        return [*(f"{name}:" for name in _names(root, "c")), ":files"]
    if kind == "a":
        return [name for one in "cinv" for name in _names(root, one)]
    return []


def _images(root: Path) -> list[str]:
    from engine.oci.reference import Reference

    found = []
    for name in _read(root, "SELECT name FROM tags ORDER BY name"):
        with contextlib.suppress(EngineError):
            found.append(Reference.parse(name).familiar)
    return found


def _volumes(root: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(root / "volumes") if not name.startswith("."))
    except OSError:
        return []


def _read(root: Path, query: str) -> list[str]:
    if os.environ.get("WORKBENCH_HOST"):
        return []  # another engine's names are not worth a connection for each key
    try:
        with contextlib.closing(sqlite3.connect(f"file:{root}/records.sqlite?mode=ro", uri=True, timeout=0.2)) as db:
            return [str(row[0]) for row in db.execute(query)]
    except sqlite3.Error:
        return []
