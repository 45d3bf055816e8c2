"""`login` and `logout`."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path

from engine.cli.common import read
from engine.cli.flags import Flag
from engine.errors import InvalidInput

_HUB_NAME = "docker.io"


def _server(args: list[str]) -> str:
    """`[https://]HOST[:PORT][/…]` as a registry's name."""
    text = args[0] if args else _HUB_NAME
    host = text.split("://")[-1].split("/")[0].lower()
    if not host:
        raise InvalidInput(f"{text!r} is not a registry", hint="write HOST or HOST:PORT")
    return host


def cmd_login(root: Path, args: list[str]) -> int:
    flags = [
        Flag("username", "Username", "u", kind="str"),
        Flag("password", "Password or personal access token (PAT)", "p", kind="str"),
        Flag("password-stdin", "Take the password from stdin"),
    ]
    parsed = read(args, "login [OPTIONS] [SERVER]", "Authenticate to a registry", flags, maximum=1)
    if parsed is None:
        return 0
    from engine.registry.config import Credentials, RegistryConfig
    from engine.registry.credentials import Keychain
    from engine.registry.login import try_login

    server = _server(parsed.args)
    username, password = parsed.text("username"), parsed.text("password")
    if parsed.on("password-stdin"):
        if password:
            raise InvalidInput("--password and --password-stdin are mutually exclusive")
        if not username:
            raise InvalidInput("Must provide --username with --password-stdin")
        password = sys.stdin.read().rstrip("\r\n")
    elif password:
        print("WARNING! Using --password via the CLI is insecure. Use --password-stdin.", file=sys.stderr)
    if not (username and password) and not sys.stdin.isatty():
        raise InvalidInput("cannot ask for a name and password: stdin is not a terminal", hint="use --password-stdin")
    username = username or input("Username: ").strip()
    password = password or getpass.getpass("Password: ")
    if not username or not password:
        raise InvalidInput("a name and a password are needed to log in")
    credentials = Credentials(username, password)
    try_login(server, credentials, RegistryConfig.load(root))
    keychain = Keychain()
    if not keychain.store(server, credentials):
        print(
            f"WARNING! Your password will be stored unencrypted in {keychain.path}.\n"
            "Configure a credential helper (credsStore) to remove this warning.",
            file=sys.stderr,
        )
    print("Login Succeeded")
    return 0


def cmd_logout(root: Path, args: list[str]) -> int:
    parsed = read(args, "logout [SERVER]", "Log out from a registry", [], maximum=1)
    if parsed is None:
        return 0
    from engine.registry.credentials import Keychain

    server = _server(parsed.args)
    if Keychain().erase(server):
        print(f"Removing login credentials for {server}")
    else:
        print(f"Not logged in to {server}")
    return 0
