"""`ps --filter`: the answers are a real dockerd's."""

from __future__ import annotations

import pytest

from engine.cli.nouns import filters as parse
from engine.errors import EngineError, InvalidInput, NotFound
from engine.model import ContainerSummary, Port
from engine.service import container_filters as filters

ONE = ContainerSummary(
    "a" * 64, "web", "busybox", "sha256:" + "e" * 64, "sleep", "running", 10, health="healthy", labels={"a": "1", "b": ""},
    networks={"front": {"NetworkID": "f" * 64}}, published=(Port(private_port=80, public_port=8080, ip="0.0.0.0", type="tcp"), Port(private_port=53, public_port=0, ip="", type="udp")),
    mounts=({"Name": "data", "Source": "/s", "Destination": "/data"},),
)  # fmt: skip
TWO = ContainerSummary("b" * 64, "web2", "other:1", "sha256:" + "d" * 64, "true", "exited", 20, exit_code=3)


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("name=web", "web web2"),
        ("name=^/web$", "web"),
        ("name=[", ""),
        ("id=aa", "web"),
        ("status=exited", "web2"),
        ("status=exited status=running", "web web2"),
        ("exited=3", "web2"),
        ("exited=0", ""),
        ("health=healthy", "web"),
        ("health=none", "web2"),
        ("label=a", "web"),
        ("label=a=1 label=b", "web"),
        ("label=a=2", ""),
        ("ancestor=busybox", "web"),
        ("ancestor=busybox:latest", "web"),
        ("ancestor=dddd", "web2"),
        ("ancestor=d", ""),
        ("before=web2", "web"),
        ("since=web", "web2"),
        ("network=front", "web"),
        ("network=ffff", "web"),
        ("publish=8080", "web"),
        ("publish=8000-9000/tcp", "web"),
        ("publish=8080/udp", ""),
        ("expose=53/udp", "web"),
        ("volume=data", "web"),
        ("volume=/data", "web"),
        ("volume=/other", ""),
        ("is-task=false", "web web2"),
        ("is-task=true", ""),
        ("name=web status=exited", "web2"),
    ],
)
def test_what_is_kept(words: str, names: str) -> None:
    kept = filters.containers([ONE, TWO], parse(words.split()))
    assert [one.name for one in kept] == names.split()


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("nofilter", InvalidInput),
        ("foo=1", InvalidInput),
        ("status=foo", InvalidInput),
        ("health=x", InvalidInput),
        ("exited=a", InvalidInput),
        ("publish=a/b", InvalidInput),
        ("is-task=maybe", InvalidInput),
        ("before=nope", NotFound),
    ],
)
def test_what_is_refused(words: str, kind: type[EngineError]) -> None:
    with pytest.raises(kind):
        filters.containers([ONE, TWO], parse([words]))
