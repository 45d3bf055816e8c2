"""Which project a verb means: the flags that `docker compose` has before its verbs, here before or behind them."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from engine.base.atomic import write_atomic
from engine.cli.flags import Flag, Parsed
from engine.errors import EngineError, InvalidInput, from_os_error
from engine.project.compose.load import project_environment
from engine.project.discovery import compose_files, discover, project_name
from engine.project.model import Project

PROJECT_FLAGS = [
    Flag("file", "Compose files, the later over the earlier", "f", kind="list"),
    Flag("project-name", "The project's name (default: the folder's)", "p", kind="str"),
    Flag("profile", "Also the services of a profile", kind="list"),
    Flag("env-file", "Environment files, instead of .env", kind="list"),
    Flag("project-directory", "Where the project is (default: here)", kind="str", metavar="DIR"),
]
GLOBAL_ONLY = [
    Flag("ansi", "never, always or auto: colours", kind="str"),
    Flag("progress", "auto, tty, plain, json or quiet: how builds are shown", kind="str"),
]


def state_dir(root: Path) -> Path:
    """Where the services' logs, generations and locks of all projects are."""
    return root / "projects"


def _here() -> Path:
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise InvalidInput("the folder that you are in was deleted", hint="go to one that is there") from None


@dataclass(slots=True)
class Choice:
    """What the words say about the project. `words` are the same for another process of ours.

    All paths are absolute from the beginning: the folder that a long `up` was started in may go away, and come back."""

    root: Path  # the engine's data root, which keeps a compose file that came through stdin
    folder: Path = field(default_factory=_here)
    directory: Path | None = None  # --project-directory
    files: list[Path] = field(default_factory=list)
    name: str = ""
    profiles: list[str] = field(default_factory=list)
    env_files: list[Path] = field(default_factory=list)

    def add(self, parsed: Parsed) -> Choice:
        """These words too; `compose -f a up -f b` has both files."""
        names = parsed.items("file")
        if names[:1] == ["-"] and not self.files:
            self.directory = self.directory or _here()
        self.files += [self._from_stdin() if name == "-" else _here() / name for name in names]
        self.name = parsed.text("project-name") or self.name
        self.profiles += parsed.items("profile")
        self.env_files += [_here() / name for name in parsed.items("env-file")]
        if parsed.given("project-directory"):
            self.folder = self.directory = _here() / parsed.text("project-directory")
        return self

    def _from_stdin(self) -> Path:
        """The file that what is on stdin is kept in, named by what it says: another text does not disturb an `up` in the background
        that goes on with this one. Where it is the first file, relative paths begin here. Raises `InvalidInput`."""
        if sys.stdin.isatty():
            raise InvalidInput(
                "-f - reads the compose file from stdin, and that is a terminal", hint="use a pipe or `<`"
            )
        text = sys.stdin.buffer.read()
        file = state_dir(self.root) / f"stdin-{hashlib.sha256(text).hexdigest()[:12]}.yaml"
        try:
            file.parent.mkdir(mode=0o710, parents=True, exist_ok=True)
            write_atomic(file, text)
        except OSError as error:
            raise from_os_error(error, f"writing {file}") from error
        return file

    def load(self, named: Sequence[str] = ()) -> Project:
        """Reads the project. Raises what its files raise."""
        files = self.files or self._from_environment()
        return discover(
            self.folder if files else self.found_folder(),
            files=files,
            profiles=frozenset(self.profiles),
            name=self.name,
            env_files=[path.resolve() for path in self.env_files],
            named=frozenset(named),
            directory=self.directory,
        )

    def load_or_none(self) -> tuple[str, Project | None, EngineError | None]:
        """The project's name, and the project if its files can be read: what runs can be looked at and ended without."""
        try:
            project = self.load()
        except EngineError as error:
            if self.name:
                return self.name, None, error
            files = self.files or self._from_environment()
            folder = self.directory or (files[0].parent if files else self.found_folder())
            folder = folder.resolve()
            return os.environ.get("COMPOSE_PROJECT_NAME") or project_name(folder), None, error
        return project.name, project, None

    def _from_environment(self) -> list[Path]:
        """The process's variables, and those of `.env`."""
        folder = self.folder.resolve()
        try:
            env, _ = project_environment(folder, self.env_files, os.environ)
        except (EngineError, OSError):  # told of when the project is read
            env = dict(os.environ)
        text, separator = env.get("COMPOSE_FILE", ""), env.get("COMPOSE_PATH_SEPARATOR", ":")
        return [folder / part for part in text.split(separator) if part]

    def found_folder(self) -> Path:
        """Here, or the nearest folder above with a compose file (as `docker compose` looks for it)."""
        here = self.folder.resolve()
        if (here / "Dockerfile").is_file():
            return self.folder
        for folder in (here, *here.parents):
            if compose_files(folder):
                return folder
        return self.folder

    def words(self) -> list[str]:
        folder = self.directory or (None if self.files else self.folder)
        found = ["--project-directory", str(folder.resolve())] if folder else []
        for path in self.files:
            found += ["-f", str(path.resolve())]
        if self.name:
            found += ["-p", self.name]
        for profile in self.profiles:
            found += ["--profile", profile]
        for path in self.env_files:
            found += ["--env-file", str(path.resolve())]
        return found
