"""COPY and ADD, what is copied: sources found, filtered, and digested for the cache key. Where it goes is `writer`'s.

The rules are fsutil's copier, which BuildKit uses: a directory's content is copied, a path keeps its name below the
directory; `--include` (of --parents) and `--exclude` patterns speak of the path below the source.
"""

from __future__ import annotations

import hashlib
import posixpath
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from engine.build.dockerfile.globs import has_wildcards
from engine.build.dockerfile.ignore import Matcher
from engine.build.dockerfile.mode import Chmod
from engine.build.source import Node, Source, find_sources
from engine.errors import InvalidInput
from engine.store.view import LayerView

MAX_ID = 2**32 - 2


@dataclass(frozen=True, slots=True)
class Item:
    """One node and its path below the place where its tree goes ("" the tree's own top)."""

    path: str
    node: Node
    implied: bool = False  # a parent that no pattern names: what is there keeps its owner and times


@dataclass(frozen=True, slots=True)
class Tree:
    """One source of a COPY: a file, or a directory's content. `name` is what a file is called in a directory."""

    source: Source
    name: str
    top: Node
    filters: Filters = field(default_factory=lambda: Filters())
    archive: str = ""  # how the file is compressed, when ADD unpacks it: "none", "gzip", …

    @property
    def items(self) -> Iterator[Item]:
        """What is taken, parents first: walked when it is asked for, for a tree in the cache need not be."""
        return walk(self.source, self.top, self.filters)

    def digest(self) -> str | None:
        """Of all of it in one step, when nothing below is left out and the source knows."""
        if self.archive or not self.top.is_dir or self.filters.include or self.filters.exclude:
            return None
        return self.source.tree_digest(self.top)


@dataclass(frozen=True, slots=True)
class Text:
    """A heredoc that becomes a file."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class CopyPlan:
    """Trees and texts in the order they are written. `owner` None keeps the source's own."""

    dest: str
    trees: tuple[Tree | Text, ...]
    owner: tuple[int, int] | None = None
    chmod: Chmod | None = None
    link: bool = False


@dataclass(frozen=True, slots=True)
class Filters:
    """`include` patterns make it a COPY --parents; `required` must then exist."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    required: str = ""
    _matchers: list[Matcher | None] = field(default_factory=list)

    def matchers(self) -> tuple[Matcher | None, Matcher | None]:
        if not self._matchers:
            self._matchers.append(Matcher(self.include) if self.include else None)
            self._matchers.append(Matcher(self.exclude) if self.exclude else None)
        return self._matchers[0], self._matchers[1]


def find_trees(source: Source, word: str, exclude: Sequence[str]) -> list[Tree]:
    """What one source word of a COPY or ADD takes. Raises `InvalidInput`."""
    filters = Filters(exclude=tuple(exclude))
    trees = []
    for path, node in find_sources(source, word):
        name = posixpath.basename(path)
        if not node.is_dir and exclude:
            # The reference's own example (`--exclude=*.txt hom* /mydir/`); BuildKit itself forgets it (its issue 5489).
            matcher = filters.matchers()[1]
            if matcher is not None and matcher.excluded(name):
                continue
        trees.append(Tree(source, name, node, filters))
    return trees


def take_path(source: Source, path: str) -> Tree:
    """The file or directory at `path`, which is no pattern. Raises `InvalidInput`."""
    node = source.lookup(path)
    if node is None:
        raise InvalidInput(f"/{path} is not in {source.where}")
    return Tree(source, posixpath.basename(path), node)


def find_parents(source: Source, word: str, exclude: Sequence[str]) -> list[Tree]:
    """`COPY --parents`: the paths keep their directories, from a `/./` on where there is one."""
    base, pivot, pattern = word.partition("/./")
    if not pivot:
        base, pattern = "/", word
    pattern = posixpath.normpath("/" + pattern).lstrip("/")
    # The root itself is everything.
    filters = Filters((pattern,) if pattern else (), tuple(exclude))
    if not has_wildcards(base) and not has_wildcards(pattern):
        required = posixpath.normpath(f"/{base}/{pattern}")
        if source.lookup(required, follow=False) is None:
            raise InvalidInput(
                f"{word!r} is not in {source.where}", hint="check the path, and what .dockerignore excludes"
            )
    found = find_sources(source, base)
    return [Tree(source, posixpath.basename(p), node, filters) for p, node in found]


def walk(source: Source, top: Node, filters: Filters) -> Iterator[Item]:
    """`top` and what is below it, parents first; a directory that is only on the way comes with its first content."""
    yield Item("", top)
    if top.is_dir:
        yield from _below(source, top, "", filters, [])


def _below(source: Source, folder: Node, inside: str, filters: Filters, waiting: list[Item]) -> Iterator[Item]:
    """`waiting` are the directories above that nothing was given out of yet."""
    include, exclude = filters.matchers()
    for node in source.children(folder):
        name = posixpath.basename(node.path)
        path = f"{inside}/{name}" if inside else name
        excluded = exclude is not None and exclude.excluded(path)
        wanted = not excluded and (include is None or include.excluded(path))
        item = Item(path, node, implied=not wanted)
        if wanted and not source.hidden(node):
            yield from waiting
            waiting.clear()
            yield item
        elif not node.is_dir or (excluded and exclude is not None and not exclude.has_exclusions):
            continue
        else:
            waiting.append(item)
        if node.is_dir:
            yield from _below(source, node, path, filters, waiting)
            if waiting and waiting[-1] is item:
                waiting.pop()


def digest_plan(plan: CopyPlan) -> dict[str, str]:
    """What the result depends on: `file:path` or `tree:path/` -> type, mode, owner and content, in words that explain a change."""
    inputs: dict[str, str] = {}
    for tree in plan.trees:
        if isinstance(tree, Text):
            inputs[f"file:<<{tree.name}"] = f"text {hashlib.sha256(tree.content).hexdigest()}"
            continue
        whole = tree.digest()
        if whole is not None:
            inputs[f"tree:{tree.top.path or '.'}/"] = f"{tree.name} {whole}"
            continue
        for item in tree.items:
            key = item.node.path or "."
            if item.node.is_dir and not item.path:
                inputs[f"file:{key}/"] = f"dir {tree.name if tree.top.is_dir else ''}"
                continue
            inputs[f"file:{key}/" if item.node.is_dir else f"file:{key}"] = _describe(tree, item)
    return inputs


def _describe(tree: Tree, item: Item) -> str:
    node = item.node
    mode = f"{stat.S_IMODE(node.status.st_mode):04o}"
    owner = f" {node.status.st_uid}:{node.status.st_gid}" if tree.source.keeps_owner else ""
    xattrs = "".join(f" {k}={v.hex()}" for k, v in tree.source.xattrs(node).items())
    where = item.path or tree.name
    if node.is_file:
        kind = f"unpacked-{tree.archive}" if tree.archive else "file"
        return f"{where} {kind} {mode} {tree.source.digest(node)}{owner}{xattrs}"
    if node.is_dir:
        return f"{where} dir {mode}{owner}{xattrs}{' implied' if item.implied else ''}"
    if node.is_link:
        return f"{where} link {node.link}{owner}"
    return f"{where} {stat.S_IFMT(node.status.st_mode):o} {mode} {node.status.st_rdev}{owner}"


# --- owners ---------------------------------------------------------------------------------------------


def resolve_owner(text: str, view: LayerView, flag: str = "--chown") -> tuple[int, int] | None:
    """`user[:group]` by number, or by name from the image's own passwd and group files; None for an empty text.

    A user given by number has the group of the same number, one given by name its own group from passwd.
    """
    if not text:
        return None
    user, _, group = text.partition(":")
    gid: int | None = None
    if user.isascii() and user.isdigit():
        uid = gid = int(user)
    elif user:
        row = table(view, "etc/passwd").get(user)
        if row is None or len(row) < 4 or not row[3].isdigit():
            raise InvalidInput(
                f"{flag}={text}: the image has no user {user!r}",
                hint="create it in a RUN step before, or give a number",
            )
        uid, gid = int(row[2]), int(row[3])
    else:
        uid = gid = 0
    if group:
        if group.isascii() and group.isdigit():
            gid = int(group)
        else:
            found = table(view, "etc/group").get(group)
            if found is None:
                raise InvalidInput(
                    f"{flag}={text}: the image has no group {group!r}", hint="create it before, or give a number"
                )
            gid = int(found[2])
    if max(uid, gid) > MAX_ID:
        raise InvalidInput(f"{flag}={text}: ids go up to {MAX_ID}")
    return uid, gid


def table(view: LayerView, path: str) -> Mapping[str, list[str]]:
    """passwd or group of an image, by name; the first line of a name counts."""
    data = view.read(path) or b""
    found: dict[str, list[str]] = {}
    for line in data.decode(errors="replace").splitlines():
        row = line.split(":")
        if len(row) >= 3 and row[2].isascii() and row[2].isdigit() and len(row[2]) < 11:
            found.setdefault(row[0], row)
    return found
