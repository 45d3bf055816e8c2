"""COPY, ADD and WORKDIR as work: which files, from where, under which key."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from engine.archive.writer import LayerWriter
from engine.build.copier import can_stream, stream_plan, write_plan
from engine.build.copy import CopyPlan, Text, Tree, digest_plan, find_parents, find_trees, resolve_owner
from engine.build.delta import Copied, copied_key
from engine.build.dockerfile.ast import Add, Copy, Workdir
from engine.build.dockerfile.mode import parse_chmod
from engine.build.dockerfile.words import expand, process
from engine.build.fetch import Fetcher, is_http, parse_checksum
from engine.build.git import Git, GitRef, GitSource, parse_git_ref
from engine.build.indexed import IndexedSource
from engine.build.site import Site, Work
from engine.build.state import State
from engine.build.unpack import archive_kind
from engine.build.writer import UpperWriter
from engine.errors import InvalidInput
from engine.store.view import LayerView


def plan_copy(site: Site, state: State, copy: Copy | Add, stage: int) -> Work:
    """Raises `InvalidInput`, `NotFound`, and what reading the sources raises."""
    return _CopyPlanner(site, state, copy, stage).plan()


def plan_workdir(site: Site, state: State, instruction: Workdir) -> Work | None:
    """Sets the working directory. A layer makes it, unless it is the root: then there is none."""
    path = expand(instruction.path, state.variables, site.escape)
    # An absolute path stays in the config as it is written, as in BuildKit: with a slash at its end, for instance.
    written = path if path.startswith("/") else _clean(posixpath.join("/", state.workdir, path))
    state.workdir = _clean(written)
    state.config = state.config.with_config(WorkingDir=written)
    if written == "/":
        return None
    view = site.view(state)
    owner = resolve_owner(state.config.user, view, "USER") if state.config.user else None
    target = state.workdir

    def perform(upper: Path, scratch: Path) -> None:
        writer = UpperWriter(upper, view, epoch=site.epoch or 0)
        place = writer.resolve(target)
        if writer.status(place) is None:
            writer.make_dirs(place, owner=owner)
        else:
            writer.check_directory(place)
        writer.close()

    uid, gid = owner or (0, 0)
    inputs = {"instruction": f"{target} {uid}:{gid}"}
    return Work(inputs, f"WORKDIR {written}", perform)


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))


class _CopyPlanner:
    def __init__(self, site: Site, state: State, copy: Copy | Add, stage: int) -> None:
        self._site, self._state, self._copy, self._stage = site, state, copy, stage
        self._is_add = isinstance(copy, Add)
        self._checksum = self._word(copy.checksum) if isinstance(copy, Add) else ""
        self._remote: list[tuple[GitRef, str]] = []  # repositories to check out when the work is done
        self._inputs: dict[str, str] = {}

    def _word(self, text: str) -> str:
        return expand(text, self._state.variables, self._site.escape)

    def plan(self) -> Work:
        site, state, copy = self._site, self._state, self._copy
        sources, dest = [self._word(word) for word in copy.sources], self._word(copy.dest)
        chown, chmod_text = self._word(copy.chown), self._word(copy.chmod)
        chmod = parse_chmod(chmod_text)
        view = LayerView([]) if copy.link and not chmod_text else site.view(state)
        owner = resolve_owner(chown, site.view(state))
        self._check_checksum(sources)
        trees: list[Tree | Text | GitRef] = []
        for word in sources:
            trees += self._source(word)
        trees += self._texts()
        parents = isinstance(copy, Copy) and copy.parents
        flags = [("--parents", parents), (f"--chown={chown}", chown), (f"--chmod={chmod_text}", chmod_text)]
        words = [text for text, given in flags if given]
        words += [*sources, *(f"<<{text.name}" for text in copy.heredocs), dest]
        name = "ADD" if self._is_add else "COPY"
        plan = CopyPlan(
            _absolute(state.workdir, dest), tuple(t for t in trees if not isinstance(t, GitRef)), owner, chmod
        )
        uid, gid = owner or ("-", "-")
        inputs = {"instruction": f"{plan.dest} {uid}:{gid} {chmod_text}", **self._inputs}
        inputs |= digest_plan(plan)

        def perform(upper: Path, scratch: Path) -> None:
            opened: list[GitSource] = []
            try:
                whole = replace(plan, trees=tuple(self._check_out(trees, opened)))
                write_plan(whole, upper, view, site.cancel, epoch=site.epoch or 0)
            finally:
                for source in opened:
                    source.close()

        def stream(upper: Path, out: LayerWriter) -> None:
            stream_plan(plan, upper, view, site.cancel, out)

        # With --link, and with times that are clamped, what is written differs from what the differ is to say of it.
        plain = not (copy.link or self._remote or site.epoch is not None) and can_stream(plan)
        copied = self._copied(plan, view, inputs["instruction"]) if plain else None
        return Work(inputs, f"{name} {' '.join(words)} # buildkit", perform, stream if plain else None, copied)

    def _copied(self, plan: CopyPlan, view: LayerView, instruction: str) -> Copied | None:
        """For a whole folder of a context that remembers: nothing chosen by patterns, nothing that shows for what is below it alone."""
        (tree,) = plan.trees
        if not isinstance(tree, Tree) or not isinstance(tree.source, IndexedSource) or not tree.top.is_dir:
            return None
        source, filters = tree.source, tree.filters
        if filters.include or filters.exclude or (source.matcher is not None and source.matcher.has_exclusions):
            return None
        return Copied(plan, tree, source, view, copied_key(self._state.chain, instruction, plan, tree, source))

    # --- sources --------------------------------------------------------------------------------------

    def _check_checksum(self, sources: Sequence[str]) -> None:
        if not self._checksum:
            return
        if len(sources) != 1:
            raise InvalidInput("checksum can't be specified for multiple sources")
        if not is_http(sources[0]) and parse_git_ref(sources[0]) is None:
            raise InvalidInput("checksum requires HTTP(S) or Git sources")

    def _source(self, word: str) -> Sequence[Tree | GitRef]:
        git = parse_git_ref(word)
        if git is not None:
            if not self._is_add:
                raise InvalidInput("source can't be a git ref for COPY", hint="use ADD")
            return [self._git(git, word)]
        if is_http(word):
            if not self._is_add:
                raise InvalidInput("source can't be a URL for COPY", hint="use ADD")
            return [self._download(word)]
        return self._local(word)

    def _local(self, word: str) -> list[Tree]:
        copy = self._copy
        name = copy.from_ if isinstance(copy, Copy) else ""
        source = self._site.origin(name, self._stage, numbers=True).as_source()
        if isinstance(copy, Copy) and copy.parents:
            return find_parents(source, word, copy.exclude)
        trees = find_trees(source, word, copy.exclude)
        unpack = isinstance(copy, Add) and copy.unpack is not False
        return [replace(tree, archive=archive_kind(source, tree.top)) for tree in trees] if unpack else trees

    def _download(self, url: str) -> Tree:
        fetcher = Fetcher(self._site.store, self._site.request, self._site.cancel)
        download = fetcher.get(url, parse_checksum(self._checksum) if self._checksum else "")
        source, node = fetcher.source(download)
        self._site.contexts.on_close(source)
        tree = Tree(source, download.name, node)
        if isinstance(self._copy, Add) and self._copy.unpack:
            return replace(tree, archive=archive_kind(source, node))
        return tree

    def _git(self, git: GitRef, word: str) -> GitRef:
        copy = self._copy
        assert isinstance(copy, Add)
        if copy.keep_git_dir is not None:
            if git.keep_git_dir not in (None, copy.keep_git_dir):
                raise InvalidInput("inconsistent keep-git-dir configuration")
            git = replace(git, keep_git_dir=copy.keep_git_dir)
        if self._checksum:
            if git.checksum not in ("", self._checksum):
                raise InvalidInput(f'checksum mismatch "{self._checksum}" != "{git.checksum}"')
            git = replace(git, checksum=self._checksum)
        commit = Git(self._site.store.tmp, self._site.request, self._site.cancel).resolve(git)
        exclude = " ".join(copy.exclude)
        self._inputs[f"git:{word}"] = f"{commit} {git.subdir} {git.keep_git_dir} {git.submodules} {git.mtime} {exclude}"
        self._remote.append((git, commit))
        return git

    def _check_out(self, trees: Sequence[Tree | Text | GitRef], opened: list[GitSource]) -> list[Tree | Text]:
        """The trees with the repositories fetched: only when the step is not in the cache."""
        commits = iter(self._remote)
        found: list[Tree | Text] = []
        for tree in trees:
            if not isinstance(tree, GitRef):
                found.append(tree)
                continue
            git, commit = next(commits)
            source = GitSource(git, self._site.store.tmp, self._site.request, self._site.cancel, commit=commit)
            opened.append(source)
            found += find_trees(source, "/", self._copy.exclude)
        return found

    def _texts(self) -> list[Text]:
        """Heredocs as files; unquoted ones have their variables expanded here, quotes in them mean nothing."""
        found = []
        for heredoc in self._copy.heredocs:
            text = heredoc.text
            if heredoc.expand:
                text = process(text, self._state.variables, "\\", skip_quotes=True).text
            found.append(Text(_plain_name(heredoc.name), text.encode("utf-8", "surrogateescape")))
        return found


def _plain_name(name: str) -> str:
    if "/" in name or name in ("", ".", ".."):
        raise InvalidInput(f"the heredoc name {name!r} is no file name")
    return name


def _absolute(workdir: str, dest: str) -> str:
    """`dest` below the working directory; a trailing slash or `/.` says that it is a directory, and stays."""
    whole = dest if dest.startswith("/") else posixpath.join(workdir, dest or ".")
    is_folder = whole.endswith(("/", "/.")) or dest in ("", ".")
    clean = _clean(whole)
    return clean + "/" if is_folder and clean != "/" else clean
