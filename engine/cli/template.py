"""`--format` templates: Go's text/template language over the documents that the verbs print.

Actions, pipelines, variables, `if`, `with`, `range`, `break`, `continue`, comments and trim marks (text/template, "Actions").
`define`, `block` and `template` are refused: a format has nothing to name. Parsed into small nodes, each of which writes itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from engine.cli.template_functions import FUNCTIONS, Missing, shown, truth, typed
from engine.errors import InvalidInput

_MAX_DEPTH = 100
_MAX_OUTPUT = 64 << 20
_TOKEN = re.compile(
    r"""\s*(?:(?P<text>"(?:[^"\\\n]|\\.)*"|`[^`]*`)|(?P<char>'(?:[^'\\\n]|\\.)')|(?P<number>[-+]?(?:0[xX][0-9a-fA-F_]+|\d[\d_]*(?:\.\d+)?))
    |(?P<field>(?:\.[A-Za-z_]\w*)+)|(?P<variable>\$\w*)|(?P<word>[A-Za-z_]\w*)|(?P<mark>:=|[|(),.=]))""",
    re.VERBOSE,
)


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


@dataclass(slots=True)
class _Scope:
    """What an expression sees: dot, the variables (innermost last), the functions, and where output goes."""

    dot: Any
    functions: Mapping[str, Callable[..., Any]]
    variables: list[tuple[str, Any]]
    out: list[str] = field(default_factory=list)

    def get(self, name: str) -> Any:
        for known, value in reversed(self.variables):
            if known == name:
                return value
        raise InvalidInput(f"--format: undefined variable {name!r}")

    def assign(self, name: str, value: Any) -> None:
        for number in range(len(self.variables) - 1, -1, -1):
            if self.variables[number][0] == name:
                self.variables[number] = (name, value)
                return
        raise InvalidInput(f"--format: undefined variable {name!r}")


Node = Callable[[_Scope], None]
Value = Callable[[_Scope], Any]


class Template:
    """Parsed once, written for each row. Raises `InvalidInput` for what does not parse or cannot be evaluated.

    `escapes`: `\\t` and `\\n` between the actions are a tab and a line's end, as in Docker's lists.
    """

    def __init__(self, text: str, *, escapes: bool = False) -> None:
        self._body, end = _Parser(text, escapes).block(0)
        if end:
            raise InvalidInput(f"--format: unexpected {{{{{end}}}}}")

    def write(self, row: Any, functions: Mapping[str, Callable[..., Any]] = FUNCTIONS) -> str:
        scope = _Scope(row, functions, [("$", row)])
        self._body(scope)
        return "".join(scope.out)


@dataclass(frozen=True, slots=True)
class _Piece:
    """Text, or the inside of an action."""

    text: str
    action: bool


def _pieces(text: str) -> Iterator[_Piece]:
    position, trim = 0, False
    while True:
        start = text.find("{{", position)
        plain = text[position:] if start < 0 else text[position:start]
        plain = plain.lstrip(" \t\r\n") if trim else plain
        if start < 0:
            if plain:
                yield _Piece(plain, False)
            return
        inside = start + 2
        if re.match(r"-\s", text[inside : inside + 2]):
            plain, inside = plain.rstrip(" \t\r\n"), inside + 1
        if plain:
            yield _Piece(plain, False)
        end = _end_of_action(text, inside)
        body = text[inside:end]
        trim = re.search(r"\s-$", body) is not None
        body = (body[:-1] if trim else body).strip()
        if not body.startswith("/*"):
            yield _Piece(body, True)
        position = end + 2


def _end_of_action(text: str, start: int) -> int:
    """Where the action's `}}` stands; one inside a quoted text does not count."""
    match = re.compile(r'(?:\s*/\*.*?\*/\s*-?|"(?:[^"\\\n]|\\.)*"|`[^`]*`|(?!\}\}).)*', re.DOTALL).match(text, start)
    if match is None or not text.startswith("}}", match.end()):
        raise InvalidInput("--format: unclosed action", hint="every {{ needs its }}")
    return match.end()


class _Parser:
    def __init__(self, text: str, escapes: bool) -> None:
        self._pieces = list(_pieces(text))
        if escapes:
            self._pieces = [
                one if one.action else _Piece(one.text.replace("\\t", "\t").replace("\\n", "\n"), False)
                for one in self._pieces
            ]
        self._at = 0

    def block(self, depth: int) -> tuple[Node, str]:
        """Nodes up to the end, an `end` or an `else…`, which is returned ("" at the text's end)."""
        if depth > _MAX_DEPTH:
            raise InvalidInput("--format: it is nested too deeply")
        nodes: list[Node] = []
        while self._at < len(self._pieces):
            piece = self._pieces[self._at]
            self._at += 1
            word = re.match(r"\w*", piece.text)
            keyword = word[0] if piece.action and word is not None else ""
            if not piece.action:
                nodes.append(_literal(piece.text))
            elif keyword in ("end", "else"):
                return _sequence(nodes), piece.text
            elif keyword in ("if", "with", "range"):
                nodes.append(self._control(keyword, piece.text[len(keyword) :], depth))
            elif piece.text in ("break", "continue"):
                nodes.append(_raise(_Break if piece.text == "break" else _Continue))
            elif keyword in ("define", "block", "template"):
                raise InvalidInput(f"--format: {keyword} is not supported")
            else:
                nodes.append(_output(*_Expression(piece.text).action()))
        return _sequence(nodes), ""

    def _control(self, keyword: str, head: str, depth: int) -> Node:
        names, value, _ = _Expression(head).action(many=keyword == "range")
        body, end = self.block(depth + 1)
        otherwise: Node = _sequence([])
        if end.startswith("else"):
            rest = end[4:].strip()
            if rest:  # {{else if …}}: an if of its own, whose end is this one's, too
                word = rest.split()[0]
                if word not in ("if", "with"):
                    raise InvalidInput(f"--format: unexpected {{{{{end}}}}}")
                otherwise, end = self._control(word, rest[len(word) :], depth + 1), "end"
            else:
                otherwise, end = self.block(depth + 1)
        if end != "end":
            raise InvalidInput(f"--format: {{{{{keyword}}}}} has no {{{{end}}}}")
        if keyword == "range":
            return _range(names, value, body, otherwise)
        return _choice(names, value, body, otherwise, moves=keyword == "with")


# --- nodes -----------------------------------------------------------------------------------------------


def _literal(text: str) -> Node:
    return lambda scope: scope.out.append(text)


def _sequence(nodes: Sequence[Node]) -> Node:
    def run(scope: _Scope) -> None:
        for node in nodes:
            node(scope)

    return run


def _raise(kind: type[Exception]) -> Node:
    def run(scope: _Scope) -> None:
        raise kind

    return run


def _output(names: Sequence[str], value: Value, declares: bool) -> Node:
    def run(scope: _Scope) -> None:
        found = value(scope)
        if not names:
            scope.out.append(shown(found))
        elif declares:
            scope.variables.append((names[0], found))
        else:
            scope.assign(names[0], found)

    return run


def _choice(names: Sequence[str], value: Value, body: Node, otherwise: Node, *, moves: bool) -> Node:
    def run(scope: _Scope) -> None:
        found, mark, dot = value(scope), len(scope.variables), scope.dot
        scope.variables += [(name, found) for name in names]
        try:
            if truth(found):
                scope.dot = found if moves else dot
                body(scope)
            else:
                otherwise(scope)
        finally:
            scope.dot = dot
            del scope.variables[mark:]

    return run


def _range(names: Sequence[str], value: Value, body: Node, otherwise: Node) -> Node:
    def run(scope: _Scope) -> None:
        pairs, dot, mark = _pairs(value(scope)), scope.dot, len(scope.variables)
        try:
            for key, one in pairs:
                values = (one,) if len(names) == 1 else (key, one)
                scope.variables += list(zip(names, values, strict=False))
                scope.dot = one
                try:
                    body(scope)
                except _Continue:
                    pass
                except _Break:
                    break
                finally:
                    del scope.variables[mark:]
        finally:
            scope.dot = dot
        if not pairs:
            otherwise(scope)

    return run


def _pairs(value: Any) -> list[tuple[Any, Any]]:
    if value is None or isinstance(value, Missing):
        return []
    if isinstance(value, Mapping):
        return sorted(value.items())
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(min(value, 1_000_000))]
    raise InvalidInput(f"--format: range can't iterate over {shown(value)}")


# --- expressions -----------------------------------------------------------------------------------------


class _Expression:
    """The inside of an action: `[$x :=|=] pipeline`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, str, bool]] = []  # kind, text, whether a space stands before it
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None or match.lastgroup is None:
                raise self._error(text[position:].strip()[:20])
            word = match[match.lastgroup]
            self._tokens.append((match.lastgroup, word, match.start(match.lastgroup) > position or position == 0))
            position = match.end()
        self._at = 0

    def _error(self, near: str) -> InvalidInput:
        return InvalidInput(
            f"--format: {{{{{self._text.strip()}}}}} cannot be understood" + (f", at {near!r}" if near else ""),
            hint="use {{.Field}}, {{json .Field}} and Go's template functions",
        )

    def _peek(self) -> tuple[str, str, bool]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("", "", True)

    def _next(self) -> tuple[str, str, bool]:
        token = self._peek()
        self._at += 1
        return token

    def action(self, *, many: bool = False) -> tuple[list[str], Value, bool]:
        """Variable names, the pipeline's value, and whether the names are declared (`:=`) or assigned."""
        names: list[str] = []
        save = self._at
        while self._peek()[0] == "variable":
            names.append(self._next()[1])
            if self._peek()[1] != ",":
                break
            self._next()
        mark = self._peek()[1]
        if not names or mark not in (":=", "=") or len(names) > (2 if many else 1):
            names, self._at, mark = [], save, ":="
        else:
            self._next()
        value = self._pipeline(0)
        if self._at < len(self._tokens):
            raise self._error(self._peek()[1])
        return names, value, mark == ":="

    def _pipeline(self, depth: int) -> Value:
        if depth > _MAX_DEPTH:
            raise self._error("(")
        value = self._command(None, depth)
        while self._peek()[1] == "|":
            self._next()
            value = self._command(value, depth)
        return value

    def _command(self, piped: Value | None, depth: int) -> Value:
        kind, word, _ = self._peek()
        if kind == "word" and word not in ("true", "false", "nil"):
            self._next()
            return self._call(word, [*self._arguments(depth), *([piped] if piped is not None else [])])
        first = self._operand(depth)
        arguments = self._arguments(depth)
        if piped is not None:
            arguments.append(piped)
        return _method(first, arguments) if arguments else first

    def _arguments(self, depth: int) -> list[Value]:
        found: list[Value] = []
        while self._peek()[0] and self._peek()[1] not in ("|", ")"):
            found.append(self._operand(depth))
        return found

    def _call(self, name: str, arguments: Sequence[Value]) -> Value:
        if name in ("and", "or"):
            return _short_circuit(name == "and", arguments)
        if name not in FUNCTIONS:
            raise InvalidInput(f"--format: function {name!r} is not defined", hint=f"there are {', '.join(FUNCTIONS)}")

        def run(scope: _Scope) -> Any:
            values = [argument(scope) for argument in arguments]
            try:
                result = scope.functions[name](*values)
            except (TypeError, ValueError) as error:
                raise InvalidInput(f"--format: {name} cannot be called so: {error}") from error
            if isinstance(result, str) and len(result) > _MAX_OUTPUT:
                raise InvalidInput(f"--format: {name} gives more than {_MAX_OUTPUT} characters")
            return result

        return run

    def _operand(self, depth: int) -> Value:
        kind, word, _ = self._next()
        if kind == "mark" and word == "(":
            value = self._pipeline(depth + 1)
            if self._next()[1] != ")":
                raise self._error("(")
        elif kind == "mark" and word == ".":
            value = lambda scope: scope.dot  # noqa: E731
        elif kind == "field":
            return _fields(lambda scope: scope.dot, word)
        elif kind == "variable":
            value = lambda scope, name=word: scope.get(name)  # type: ignore[misc]  # noqa: E731
        elif kind == "word" and word not in ("true", "false", "nil"):
            return self._call(word, [])
        else:
            constant = self._constant(kind, word)
            return lambda scope: constant
        # (…).Field and $x.Field: only without a space between
        if self._peek()[0] == "field" and not self._peek()[2]:
            return _fields(value, self._next()[1])
        return value

    def _constant(self, kind: str, word: str) -> Any:
        if kind == "word":
            return {"true": True, "false": False, "nil": None}[word]
        if kind == "number":
            bare = word.replace("_", "")
            return float(bare) if "." in bare else int(bare, 0) if not re.fullmatch(r"[-+]?0\d+", bare) else int(bare)
        if kind == "text":
            return word[1:-1] if word[0] == "`" else _unquoted(word)
        if kind == "char":
            return ord(_unquoted(f'"{word[1:-1]}"'))
        raise self._error(word)


def _unquoted(word: str) -> str:
    try:
        return str(json.loads(re.sub(r"\\([^\"\\/bfnrtu])", r"\\\\\1", word)))
    except ValueError:
        raise InvalidInput(f"--format: {word} is not a quoted text") from None


def _short_circuit(every: bool, arguments: Sequence[Value]) -> Value:
    if not arguments:
        raise InvalidInput(f"--format: {'and' if every else 'or'} takes one value or more")

    def run(scope: _Scope) -> Any:
        found: Any = None
        for argument in arguments:
            found = argument(scope)
            if truth(found) != every:
                return found
        return found

    return run


def _fields(value: Value, path: str) -> Value:
    names = path[1:].split(".")

    def run(scope: _Scope) -> Any:
        found = value(scope)
        for name in names:
            if isinstance(found, Missing):
                return found
            if isinstance(found, Mapping) and name in found:
                found = typed(name, found[name])
            elif name == "Label" and isinstance(found, Mapping) and "Labels" in found:
                return _Labels(str(found["Labels"]))
            else:
                return Missing(name, [str(key) for key in found] if isinstance(found, Mapping) else [])
        return found

    return run


class _Labels:
    """Docker's `.Label "key"` of a list's row."""

    def __init__(self, text: str) -> None:
        self._pairs = dict(entry.partition("=")[::2] for entry in text.split(",") if entry)

    def __call__(self, key: Any) -> str:
        return self._pairs.get(str(key), "")


def _method(first: Value, arguments: Sequence[Value]) -> Value:
    def run(scope: _Scope) -> Any:
        found = first(scope)
        if isinstance(found, Missing):
            raise found.error()
        if not isinstance(found, _Labels):
            raise InvalidInput(f"--format: {shown(found)} is not a function, and takes no arguments")
        return found(*(argument(scope) for argument in arguments))

    return run
