"""From frontend options to a request to our builder."""

from __future__ import annotations

from pathlib import Path

import pytest

from engine.api import BuildOutput
from engine.errors import Unsupported
from engine.rest.buildkit.messages import CacheEntry, Exporter
from engine.rest.buildkit.request import Wanted, build_request, check_frontend, named_folder, unknown_options

CONTEXT, DOCKERFILE, SCRATCH = Path("/c"), Path("/d/Dockerfile"), Path("/s")


def test_every_option_of_docker_build() -> None:
    options = {
        "target": "t", "build-arg:A": "1", "label:l": "v", "no-cache": "", "platform": "linux/amd64,linux/arm64",
        "image-resolve-mode": "pull", "force-network-mode": "host", "add-hosts": "a=1.2.3.4,b=::1", "shm-size": "1024",
        "ulimit": "nofile=1:2", "context:x": "local:x", "context:y": "docker-image://busybox",
        "cache-imports": '[{"Type": "registry", "Attrs": {"ref": "r/c"}}]',
    }  # fmt: skip
    exporter = Exporter("moby", {"name": "a:1,b:2", "push": "true", "unpack": "true", "annotation.k": "v"})
    wanted = Wanted(options, [exporter], [CacheEntry("registry", {"ref": "r/o", "mode": "max"})], (), ["network.host"])
    request = build_request(wanted, CONTEXT, DOCKERFILE, SCRATCH)
    assert (request.target, request.build_args, request.labels) == ("t", {"A": "1"}, {"l": "v"})
    assert (request.no_cache, request.pull, request.network, request.shm_size) == (True, True, "host", 1024)
    assert request.platforms == ("linux/amd64", "linux/arm64")
    assert (request.add_hosts, request.ulimits) == (("a:1.2.3.4", "b:::1"), ("nofile=1:2",))
    assert request.contexts == {"x": str(named_folder(SCRATCH, "x")), "y": "docker-image://busybox"}
    assert (request.cache_from, request.cache_to) == (("type=registry,ref=r/c",), ("type=registry,mode=max,ref=r/o",))
    assert (request.tags, request.allow, request.annotations) == (("a:1", "b:2"), ("network.host",), {"k": "v"})
    (output,) = request.outputs
    assert (output.type, output.options) == ("image", {"name": "a:1,b:2", "push": "true"})


def test_results_for_the_client_are_written_here_first() -> None:
    request = build_request(Wanted({}, [Exporter("local"), Exporter("oci")]), CONTEXT, DOCKERFILE, SCRATCH)
    assert [output.path for output in request.outputs] == ["/s/output-0", "/s/output-1"]
    assert build_request(Wanted({}, []), CONTEXT, DOCKERFILE, SCRATCH).outputs == (BuildOutput("cacheonly"),)


def test_a_list_of_stages_without_the_cache() -> None:
    request = build_request(Wanted({"no-cache": "a,b"}, []), CONTEXT, DOCKERFILE, SCRATCH)
    assert (request.no_cache, request.no_cache_filter) == (False, ("a", "b"))


def test_a_contexts_key_is_no_path() -> None:
    assert named_folder(SCRATCH, "../../etc").parent == SCRATCH


@pytest.mark.parametrize(
    "wanted",
    [
        Wanted({"context:x": "oci-layout://x"}, []),
        Wanted({"context:x": "input:x"}, []),
        Wanted({}, [Exporter("oci", {"tar": "false"})]),
        Wanted({}, [Exporter("exec")]),
        Wanted({}, [], [CacheEntry("local", {"dest": "x"})]),
    ],
)
def test_what_cannot_be_done_is_refused_by_name(wanted: Wanted) -> None:
    with pytest.raises(Unsupported):
        build_request(wanted, CONTEXT, DOCKERFILE, SCRATCH)


def test_options_without_a_meaning_here_are_told() -> None:
    assert unknown_options({"vcs:revision": "x", "filename": "D", "build-arg:X": "1", "shiny": "1"}) == ["shiny"]
    with pytest.raises(Unsupported):
        unknown_options({"attest:sbom": ""})


def test_frontends_other_than_the_dockerfiles_are_refused() -> None:
    check_frontend("dockerfile.v0", {})
    check_frontend("gateway.v0", {"source": "docker/dockerfile:1.7"})
    for source in ("example.com/other:1", ""):
        with pytest.raises(Unsupported):
            check_frontend("gateway.v0", {"source": source})
