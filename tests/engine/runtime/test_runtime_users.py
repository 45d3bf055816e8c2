"""`--user` against passwd and group files: names, numbers, and the traps."""

from __future__ import annotations

import pytest

from engine.runtime.users import Identity, UserError, resolve

PASSWD = (
    b"root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n"
    b"# c:x:5:5::/:\nbroken\n1005:x:0:0::/:/bin/sh\nneg:x:-1:0::/:\n"
)
GROUP = b"root:x:0:\nstaff:x:50:alice,bob\nbob:x:1001:\nbig:x:99999999999:bob\n2000:x:0:\n"


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("", Identity(0, 0, (0,), "/root")),
        ("0", Identity(0, 0, (0,), "/root")),
        ("root", Identity(0, 0, (0,), "/root")),
        ("bob", Identity(1000, 1001, (1001, 50), "/home/bob")),
        ("1000", Identity(1000, 1001, (1001, 50), "/home/bob")),
        ("bob:staff", Identity(1000, 50, (50,), "/home/bob")),
        ("bob:", Identity(1000, 1001, (1001, 50), "/home/bob")),
        ("1:", Identity(1, 0, (0,), "/")),
        (":1", Identity(0, 1, (1,), "/root")),
        ("1:1", Identity(1, 1, (1,), "/")),
        ("1005", Identity(1005, 0, (0,), "/")),  # never the name "1005", which is root
        ("1:2000", Identity(1, 2000, (2000,), "/")),
        ("2147483647", Identity(2147483647, 0, (0,), "/")),
    ],
)
def test_who(user: str, identity: Identity) -> None:
    assert resolve(user, PASSWD, GROUP) == identity


@pytest.mark.parametrize(
    "user",
    [
        "eve",
        "2147483648",
        "4294967296",
        "9" * 5000,
        "-1",
        "+0",
        " 0",
        "0x0",
        "٠",
        "bob:eve",
        "1:2147483648",
        "1:-1",
        "neg",
        "# c",
    ],
)
def test_refused(user: str) -> None:
    with pytest.raises(UserError):
        resolve(user, PASSWD, GROUP)


def test_without_files() -> None:
    assert resolve("", b"", b"") == Identity(0, 0, (0,), "/")
    assert resolve("12:34", b"", b"") == Identity(12, 34, (34,), "/")
