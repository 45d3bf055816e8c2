"""What docker-py's own tests look for beyond the docker command line: legacy links, limits, odd fields; by plain HTTP."""

from __future__ import annotations

import functools
import http.server
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.rest.conftest import BASE, Served

pytestmark = [pytest.mark.root]


@pytest.fixture
def made(served: Served) -> Iterator[list[str]]:
    """Names of containers that are removed afterwards."""
    names: list[str] = []
    yield names
    for name in names:
        served.call("DELETE", f"/containers/{name}", params={"force": "1", "v": "1"})


def create(served: Served, made: list[str], *command: str, **body: Any) -> str:
    answer = served.call("POST", "/containers/create", json={"Image": BASE, "Cmd": list(command), **body})
    assert answer.status_code == 201, answer.text
    made.append(answer.json()["Id"])
    return str(made[-1])


def inspect(served: Served, name: str) -> dict[str, Any]:
    return dict(served.call("GET", f"/containers/{name}/json").json())


def output(served: Served, name: str) -> str:
    """What the container says from its start to its end."""
    assert served.call("POST", f"/containers/{name}/start").status_code == 204
    assert served.call("POST", f"/containers/{name}/wait").json()["StatusCode"] == 0
    return served.call("GET", f"/containers/{name}/logs", params={"stdout": "1"}).text


def test_legacy_links_tell_of_the_other_one_and_are_removed_alone(served: Served, made: list[str]) -> None:
    other = create(served, made, "sleep", "60", Env=["A=b"], ExposedPorts={"80/tcp": {}, "53/udp": {}})
    served.call("POST", f"/containers/{other}/rename", params={"name": "linked-to"})
    assert served.call("POST", f"/containers/{other}/start").status_code == 204
    address = inspect(served, other)["NetworkSettings"]["IPAddress"]
    host = {"Links": ["linked-to:my-db"]}
    env = output(served, create(served, made, "env", HostConfig=host, Env=["MY_DB_PORT_80_TCP_PORT=mine"]))
    name = inspect(served, made[-1])["Name"]
    for line in (
        f"MY_DB_PORT=tcp://{address}:80",
        f"MY_DB_PORT_80_TCP=tcp://{address}:80",
        f"MY_DB_PORT_80_TCP_ADDR={address}",
        "MY_DB_PORT_80_TCP_PORT=mine",  # the container's own stand over them
        "MY_DB_PORT_80_TCP_PROTO=tcp",
        f"MY_DB_PORT_53_UDP=udp://{address}:53",
        f"MY_DB_NAME={name}/my-db",
        "MY_DB_ENV_A=b",
    ):
        assert line in env
    user = create(served, made, "sleep", "60", HostConfig=host)
    assert served.call("POST", f"/containers/{user}/start").status_code == 204
    name = inspect(served, user)["Name"].strip("/")
    assert served.call("DELETE", f"/containers/{name}/other", params={"link": "1"}).status_code == 404
    assert served.call("DELETE", f"/containers/{name}/my-db", params={"link": "1"}).status_code == 204
    assert inspect(served, user)["HostConfig"]["Links"] is None
    made_exec = {"Cmd": ["cat", "/etc/hosts"], "AttachStdout": True, "Tty": True}
    run = served.call("POST", f"/containers/{user}/exec", json=made_exec).json()["Id"]
    assert "my-db" not in served.call("POST", f"/exec/{run}/start", json={"Tty": True}).text


def test_fields_of_a_container_come_back_as_they_were_sent(served: Served, made: list[str]) -> None:
    endpoint = {
        "DriverOpts": {"a.b": "on"},
        "MacAddress": "02:42:ac:11:00:99",
        "IPAMConfig": {"LinkLocalIPs": ["169.254.8.8"]},
    }
    name = create(
        served,
        made,
        "sh",
        "-c",
        "env; cat /proc/net/fib_trie",
        Env=["EMPTY=", "PATH_X=1", "GONE"],
        HostConfig={"Isolation": "default"},
        NetworkingConfig={"EndpointsConfig": {"bridge": endpoint}},
    )
    found = inspect(served, name)
    assert {"EMPTY=", "GONE"} <= set(found["Config"]["Env"])
    assert found["HostConfig"]["Isolation"] == "default"
    settings = found["NetworkSettings"]["Networks"]["bridge"]
    assert (settings["DriverOpts"], settings["MacAddress"]) == ({"a.b": "on"}, "02:42:ac:11:00:99")
    assert settings["IPAMConfig"] == {"LinkLocalIPs": ["169.254.8.8"]}
    lines = output(served, name)
    assert "EMPTY=" in lines
    assert "GONE" not in lines
    assert "169.254.8.8" in lines


def test_what_is_refused_in_dockers_words(served: Served) -> None:
    def refused(host: dict[str, Any], **body: Any) -> tuple[int, str]:
        answer = served.call("POST", "/containers/create", json={"Image": BASE, "HostConfig": host, **body})
        return answer.status_code, answer.json()["message"]

    assert refused({"LogConfig": {"Type": "asdf"}}) == (400, "logger: no log driver named 'asdf' is registered")
    assert refused({"CpuRealtimePeriod": 10, "CpuRealtimeRuntime": 20})[0] == 400
    assert refused({"Isolation": "hyperv"}) == (400, "invalid isolation: \"hyperv\" - linux only supports 'default'")
    assert refused({}, NetworkingConfig={"EndpointsConfig": {"bridge": {"IPAMConfig": {"LinkLocalIPs": ["1.2.3.4"]}}}})[
        0
    ] == (400)


def test_auxiliary_addresses_are_given_to_nobody(served: Served, made: list[str]) -> None:
    pool = {"Subnet": "10.213.7.0/29", "Gateway": "10.213.7.1", "AuxiliaryAddresses": {"router": "10.213.7.2"}}
    body = {"Name": "aux", "IPAM": {"Config": [pool]}}
    assert served.call("POST", "/networks/create", json=body).status_code == 201
    try:
        assert served.call("GET", "/networks/aux").json()["IPAM"]["Config"] == [pool]
        name = create(served, made, "sleep", "60", HostConfig={"NetworkMode": "aux"})
        assert served.call("POST", f"/containers/{name}/start").status_code == 204
        assert inspect(served, name)["NetworkSettings"]["Networks"]["aux"]["IPAddress"] == "10.213.7.3"
    finally:
        served.call("DELETE", f"/containers/{made[-1]}", params={"force": "1"})
        assert served.call("DELETE", "/networks/aux").status_code == 204


def test_a_committed_image_knows_its_parent(served: Served, made: list[str]) -> None:
    name = create(served, made, "true")
    image = served.call("POST", "/commit", params={"container": name, "repo": "child"}).json()["Id"]
    assert served.call("GET", f"/images/{image}/json").json()["Parent"] == inspect(served, name)["Image"]
    assert len(served.call("GET", "/images/child/history").json()) > 1
    served.call("DELETE", "/images/child", params={"force": "1"})


def context(dockerfile: str) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        info = tarfile.TarInfo("Dockerfile")
        info.size = len(dockerfile)
        archive.addfile(info, io.BytesIO(dockerfile.encode()))
    return out.getvalue()


def build(served: Served, dockerfile: str, **params: str) -> tuple[int, str]:
    headers = {"Content-Type": "application/x-tar"}
    answer = served.call("POST", "/build", params=params, content=context(dockerfile), headers=headers)
    return answer.status_code, answer.text


def test_a_build_on_a_network_of_the_users_and_with_limits(served: Served, made: list[str]) -> None:
    assert served.call("POST", "/networks/create", json={"Name": "buildnet"}).status_code == 201
    try:
        endpoint = {"EndpointsConfig": {"buildnet": {"Aliases": ["target.here"]}}}
        host = {"NetworkMode": "buildnet"}
        name = create(served, made, "sleep", "60", HostConfig=host, NetworkingConfig=endpoint)
        assert served.call("POST", f"/containers/{name}/start").status_code == 204
        look = "python3 -c 'import socket; print(socket.gethostbyname(\"target.here\"))'"
        shares = "cat /sys/fs/cgroup/cpu*/cpu.shares /sys/fs/cgroup/cpu.weight || true"
        text = f"FROM {BASE}\nRUN {look} && {{ {shares}; }}\n"
        status, lines = build(served, text, networkmode="buildnet", nocache="1", cpushares="200")
        assert status == 200
        assert "Successfully built" in lines, lines
        assert "200" in lines or '"8\\n"' in lines, lines
    finally:
        served.call("DELETE", f"/containers/{made[-1]}", params={"force": "1"})
        assert served.call("DELETE", "/networks/buildnet").status_code == 204


def test_what_is_wrong_with_a_build_is_told_with_a_status(served: Served) -> None:
    assert build(served, f"FROM {BASE}\nBOGUS x\n")[0] == 400
    quiet = build(served, f"FROM {BASE}\nRUN echo told; exit 3\n", q="1")
    assert quiet[0] == 200
    assert "told" in quiet[1], "a quiet build that fails shows everything"
    assert "Dockerfile:2:1: unknown instruction" in build(served, f"FROM {BASE}\nBOGUS x\n")[1]
    assert build(served, f"FROM {BASE}\n", networkmode="nosuch") == (
        404,
        json.dumps({"message": "network nosuch not found", "hint": "`workbench network ls` lists them"}) + "\n",
    )
    assert build(served, f"FROM {BASE}\n", securityopt='["seccomp=unconfined"]')[0] == 400
    assert build(served, f"FROM {BASE}\n", outputs='[{"Type":"local"}]')[0] == 501
    assert build(served, f"FROM {BASE}\n", version="9")[0] == 400


def test_cache_from_turns_the_cache_here_off(served: Served) -> None:
    """The classic builder's rule: steps come from the images that are named."""
    text = f"FROM {BASE}\nENV A=b\nRUN echo cached\n"
    assert build(served, text, t="cached:1")[0] == 200
    assert build(served, text, cachefrom='["cached:1"]')[1].count("Using cache") == 2
    assert "Using cache" not in build(served, text, cachefrom='["nosuch:1"]')[1]
    served.call("DELETE", "/images/cached:1")


def test_statuses_and_fields_that_dockerd_has(served: Served, made: list[str]) -> None:
    """A few of those in which the two differed when some 450 requests were sent to both."""
    ask = served.call
    for status, method, path, body in (
        (404, "POST", "/info", None),
        (400, "POST", "/containers/create", {"Image": BASE, "Env": ["=x"]}),
        (400, "POST", "/containers/create", {"Image": BASE, "WorkingDir": "relative"}),
        (400, "POST", "/containers/create", {"Image": BASE, "HostConfig": {"Memory": -1}}),
        (400, "POST", "/containers/create", {"Image": BASE, "HostConfig": {"ShmSize": -1}}),
        (400, "POST", "/containers/create", {"Image": BASE, "HostConfig": {"Links": ["nosuch:x"]}}),
        (404, "PUT", "/containers/nosuch/archive?path=/", None),
        (400, "POST", "/commit", {}),
        (400, "GET", "/events?since=5&until=1", None),
        (400, "GET", "/networks?filters={%22dangling%22:[%22x%22]}", None),
        (400, "GET", "/networks/bridge?verbose=x", None),
        (404, "GET", "/networks/bridge?scope=swarm", None),
        (403, "DELETE", "/networks/host", None),
        (403, "POST", "/networks/create", {"Name": "host"}),
        (404, "POST", "/networks/create", {"Name": "other", "Driver": "nosuch"}),
        (404, "POST", "/volumes/create", {"Name": "other", "Driver": "nosuch"}),
        (400, "POST", "/networks/prune?filters={%22until%22:[%22x%22]}", None),
        (400, "POST", f"/images/{BASE}/tag?repo=sha256:abc", None),
        (400, "POST", "/images/create?fromSrc=-&repo=BAD", None),
        (400, "GET", "/containers/json?filters={%22expose%22:[%2270000%22]}", None),
        (200, "GET", "/containers/json?filters={%22isolation%22:[%22default%22]}", None),
    ):
        answer = ask(method, path, json=body) if body is not None else ask(method, path)
        assert answer.status_code == status, (method, path, body, answer.text)
    name = create(served, made, "true")
    found = inspect(served, name)
    assert {"GraphDriver", "AppArmorProfile", "MountLabel"} <= found.keys()
    assert not {"Mounts", "Tmpfs", "Sysctls", "Init", "Annotations"} & found["HostConfig"].keys()
    assert not {"StopSignal", "ExposedPorts"} & found["Config"].keys()
    name = create(served, made, "true", Env=["LAST=1", "PATH=/bin"])
    assert inspect(served, name)["Config"]["Env"] == ["LAST=1", "PATH=/bin"], "the user's come first"
    pools = {"Config": [{"Subnet": "fd12:3456:789::/64"}]}
    assert ask("POST", "/networks/create", json={"Name": "six", "IPAM": pools}).status_code == 201
    assert ask("GET", "/networks/six").json()["EnableIPv6"], "who names such a subnet means it"
    assert ask("DELETE", "/networks/six").status_code == 204
    row = ask("GET", "/system/df?type=container").json()["Containers"][0]
    assert {"Ports", "HostConfig", "NetworkSettings", "Mounts", "SizeRootFs"} <= row.keys()
    old = ask("GET", f"http://engine/v1.40/images/{BASE}/json").json()
    assert {"ContainerConfig", "VirtualSize"} <= old.keys()
    assert "Hostname" in old["Config"]
    assert "Hostname" not in ask("GET", f"/images/{BASE}/json").json()["Config"]


def test_an_image_from_a_url_and_for_platforms(served: Served, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "root.tar.gz", "w:gz") as archive:
        archive.add(__file__, "etc/motd")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{server.server_port}"
        query = {"fromSrc": f"{place}/root.tar.gz", "repo": "fromurl", "tag": "1"}
        made_ = served.call("POST", "/images/create", params=query)
        gone = served.call("POST", "/images/create", params={**query, "fromSrc": f"{place}/nosuch"})
        server.shutdown()
    assert (made_.status_code, gone.status_code) == (200, 404), (made_.text, gone.text)
    found = served.call("GET", "/images/fromurl:1/json").json()
    assert made_.json() == {"status": found["Id"]}
    for platform, status in ((found["Architecture"], 200), ("sparc", 404)):
        wanted = json.dumps({"os": "linux", "architecture": platform})
        assert served.call("GET", "/images/fromurl:1/json", params={"platform": wanted}).status_code == status
    assert served.call("GET", "/images/fromurl:1/get", params={"platform": "{}"}).status_code == 501
    assert served.call("DELETE", "/images/fromurl:1", params={"platforms": "[]"}).status_code == 501
    assert served.call("DELETE", "/images/fromurl:1").status_code == 200


def test_names_in_host_config_are_whole(served: Served, made: list[str]) -> None:
    """As a Docker daemon since 26 writes them, however they came."""
    host = inspect(
        served, create(served, made, "true", HostConfig={"CapAdd": ["net_admin", "ALL"], "CapDrop": ["CHOWN"]})
    )
    assert host["HostConfig"]["CapAdd"] == ["ALL", "CAP_NET_ADMIN"]
    assert host["HostConfig"]["CapDrop"] == ["CAP_CHOWN"]
    assert host["HostConfig"]["NetworkMode"] == "bridge"
