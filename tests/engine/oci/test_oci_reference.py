"""References: Docker's normalisation, its refusals, and the patterns of `images`."""

from __future__ import annotations

import pytest

from engine.errors import InvalidInput
from engine.oci.digest import Digest
from engine.oci.reference import Reference, familiar_match, parse_any

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("alpine", "docker.io/library/alpine", "alpine"),
        ("alpine:3", "docker.io/library/alpine:3", "alpine:3"),
        ("index.docker.io/alpine", "docker.io/library/alpine", "alpine"),
        ("docker.io/library/alpine", "docker.io/library/alpine", "alpine"),
        ("someone/tool:v1.2", "docker.io/someone/tool:v1.2", "someone/tool:v1.2"),
        ("library/a/b", "docker.io/library/a/b", "library/a/b"),
        ("localhost/x", "localhost/x", "localhost/x"),
        ("host:5000/x", "host:5000/x", "host:5000/x"),
        ("UPPER/x", "UPPER/x", "UPPER/x"),
        ("[::1]:5000/x:t", "[::1]:5000/x:t", "[::1]:5000/x:t"),
        (f"a.b/c:t@sha256:{HEX}", f"a.b/c:t@sha256:{HEX}", f"a.b/c:t@sha256:{HEX}"),
    ],
)
def test_names_are_normalised(text: str, canonical: str, familiar: str) -> None:
    reference = Reference.parse(text)
    assert str(reference) == canonical
    assert reference.familiar == familiar
    assert Reference.parse(reference.familiar) == reference


@pytest.mark.parametrize(
    "text",
    [
        "",
        ":tag",
        "a b",
        "a//b",
        "/a",
        "a/",
        "-a",
        "a_-b",
        "a___b",
        "a@sha256:12",
        HEX,
        "https://a/b",
        "a:",
        "a\n",
        "ä",
        f"a:{'t' * 129}",
        "host:x/y/z:1:2",
        f"a@md5:{'0' * 32}",
        f"a@sha256:{HEX.upper()}",
        "/".join("a" * 130),
    ],
)
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Reference.parse(text)


@pytest.mark.parametrize("text", ["Alpine", "someone/Tool:v1", "host.io/A/b"])
def test_capitals_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput, match="lower case"):
        Reference.parse(text)


def test_the_plain_grammar_adds_nothing() -> None:
    assert Reference.parse_plain("alpine:3") == Reference("", "alpine", "3")
    assert str(Reference.parse_plain("alpine:3")) == "alpine:3"
    assert Reference.parse_plain("some/tool").domain == "some"


def test_the_default_tag_stays_away_from_a_digest() -> None:
    assert Reference.parse("a").with_default_tag().tag == "latest"
    assert Reference.parse("a:1").with_default_tag().tag == "1"
    assert Reference.parse(f"a@sha256:{HEX}").with_default_tag().tag == ""


def test_an_image_may_be_named_by_digest_alone() -> None:
    assert parse_any(HEX) == Digest(f"sha256:{HEX}")
    assert parse_any(f"sha256:{HEX}") == Digest(f"sha256:{HEX}")
    assert parse_any("a:1") == Reference("docker.io", "library/a", "1")


@pytest.mark.parametrize(
    ("pattern", "text", "match"),
    [
        ("alp*", "alpine:3", True),
        ("alpine", "alpine:3", True),
        ("alpine:3", "alpine:3", True),
        ("alpine:4", "alpine:3", False),
        ("*", "a/b", False),
        ("*/*", "a/b:1", True),
        ("**/b", "x/y/b", False),
        ("[b-c]l?ine", "alpine", False),
        ("[a-c]l??ne", "alpine", True),
        ("[^b-z]lpine", "alpine", True),
        ("[z-a]lpine", "alpine", False),
        ("alp[.i\\]]ne", "alpine", True),
    ],
)
def test_patterns_fit_the_familiar_name(pattern: str, text: str, match: bool) -> None:
    assert familiar_match(pattern, Reference.parse(text)) is match


@pytest.mark.parametrize("pattern", ["[", "[]", "a[b", "a\\", "[a-]", "[-a]"])
def test_a_broken_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput):
        familiar_match(pattern, Reference.parse("a"))
