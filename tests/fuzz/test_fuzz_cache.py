"""A cache from elsewhere is anybody's document: reading it ends with what it holds or with an error of the engine's own."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.build.cache_format import nodes_of, read, read_inline, write
from engine.build.cache_specs import parse_from, parse_to
from engine.errors import EngineError
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest
from engine.oci.media import OCI_LAYER

ONE, TWO = Digest("sha256:" + "1" * 64), Digest("sha256:" + "2" * 64)
LAYERS = [Descriptor(OCI_LAYER, ONE, 1), Descriptor(OCI_LAYER, TWO, 2)]
scalars = (
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.text(max_size=3) | st.sampled_from([ONE, TWO])
)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner))
layer = st.fixed_dictionaries(
    {"blob": st.just(ONE) | values},
    optional={"parent": values, "annotations": st.fixed_dictionaries({}, optional={"diffID": st.just(TWO) | values})},
)
more = st.fixed_dictionaries({"version": st.just(1)}, optional=dict.fromkeys(("size", "newest", "seconds"), values))
record = st.fixed_dictionaries(
    {"digest": st.just(ONE) | values},
    optional={"layers": values | st.lists(st.fixed_dictionaries({"layer": values})), "workbench": more | values},
)


@given(
    st.fixed_dictionaries({"layers": st.lists(layer | values) | values, "records": st.lists(record | values) | values})
)
def test_reading_a_cache(document: Any) -> None:
    for call in (
        lambda: read(json.dumps(document).encode(), LAYERS),
        lambda: read_inline(json.dumps(document["records"]).encode(), LAYERS, [ONE, TWO]),
    ):
        try:
            found = call()
        except EngineError:
            continue
        for step in found.steps.values():
            assert Descriptor.from_json(step["layer"]) in LAYERS
            assert step["size"] >= 0


@given(st.binary(max_size=64))
def test_bytes_that_are_no_cache(raw: bytes) -> None:
    try:
        read(raw, [])
    except EngineError:
        pass


@given(
    st.text(max_size=40)
    | st.builds(
        "type={},{}={}".format,
        st.sampled_from(["registry", "local", "inline"]),
        st.text(max_size=5),
        st.text(max_size=9),
    )
)
def test_words_of_the_flags(text: str) -> None:
    for parse in (parse_from, parse_to):
        try:
            parse(text)
        except EngineError:
            pass


def test_nothing_is_written_as_nothing() -> None:
    raw, layers = write({}, nodes_of([]), {})
    assert layers == []
    assert read(raw, []).steps == {}
