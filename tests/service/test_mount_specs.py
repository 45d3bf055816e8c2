"""What `-v`, `--mount` and the API may say: accepted, refused, and with Docker's words."""

from __future__ import annotations

from typing import Any

import pytest

from engine.errors import InvalidInput
from engine.model import ContainerSpec, Mount
from engine.oci.config import ImageConfig
from engine.runtime.spec import BindMount
from engine.service.mount_specs import (
    mount_from_api,
    mount_to_api,
    parse_bind,
    parse_mount_flag,
    parse_volume_flag,
    split_volumes_from,
    tmpfs_options,
    validate,
)
from engine.service.mounts import Point, in_order, plan


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv:/data", Mount("/srv", "/data", create_source=True)),
        ("/srv:/data:ro,z,rslave", Mount("/srv", "/data", True, create_source=True, propagation="rslave")),
        ("cache:/data", Mount("cache", "/data", type="volume")),
        ("cache:/data:nocopy,ro", Mount("cache", "/data", True, "volume", no_copy=True)),
        ("/data", Mount("", "/data", type="volume")),
        ("/a b:/with space:cached", Mount("/a b", "/with space", create_source=True)),
    ],
)
def test_short_form(text: str, expected: Mount) -> None:
    found = parse_bind(text)
    mode = text.split(":", 2)[2] if text.count(":") == 2 else ""
    assert found == Mount(**{**_fields(expected), "bind": text, "mode": mode})


def _fields(mount: Mount) -> dict[str, Any]:
    return {name: getattr(mount, name) for name in Mount.__slots__}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "invalid volume specification"),
        (":/data", "invalid volume specification: ':/data'"),
        ("a:/b:ro:z", "invalid volume specification"),
        ("/data:rw", "invalid volume specification: '/data:rw'"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        ("/a:/b:shared,slave", "invalid mode"),
        ("/a:/b:exec", "invalid mode: exec"),
        ("/a:b", "mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/a:/b/../..", "destination can't be '/'"),
        ("vol:/b:shared", "field BindOptions must not be specified"),
        ("/a:/b:nocopy", "field VolumeOptions must not be specified"),
        ("/a:/b\n", "control character"),
    ],
)
def test_short_form_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_bind(text)
    assert words in str(caught.value)


def test_a_relative_source_is_taken_from_the_folder_of_the_command_line(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert parse_volume_flag("./src:/app:ro").bind == f"{tmp_path}/src:/app:ro"
    assert parse_volume_flag("..:/app").source == str(tmp_path.parent)
    assert parse_mount_flag("type=bind,src=.,dst=/app").source == str(tmp_path)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("src=data,dst=/d", Mount("data", "/d", type="volume")),
        ("type=bind,source=/a,target=/b,readonly", Mount("/a", "/b", True)),
        ("type=bind,src=/a,destination=/b,ro=false,bind-propagation=rshared", Mount("/a", "/b", propagation="rshared")),
        ("type=bind,src=/a,dst=/b,bind-recursive=disabled", Mount("/a", "/b", non_recursive=True)),
        ("type=bind,src=/a,dst=/b,bind-create-src", Mount("/a", "/b", create_source=True)),
        ("type=volume,dst=/b,volume-nocopy=true", Mount("", "/b", type="volume", no_copy=True)),
        (
            'type=volume,src=v,dst=/b,volume-label=a=1,volume-label=b,volume-driver=local,"volume-opt=o=uid=1,size=2m"',
            Mount(
                "v",
                "/b",
                type="volume",
                labels={"a": "1", "b": ""},
                driver="local",
                driver_options={"o": "uid=1,size=2m"},
            ),
        ),
        ("type=volume,src=v,dst=/b,volume-subpath=x/y", Mount("v", "/b", type="volume", subpath="x/y")),
        (
            "type=tmpfs,dst=/t,tmpfs-size=64m,tmpfs-mode=1770",
            Mount("", "/t", False, "tmpfs", tmpfs_size=64 << 20, tmpfs_mode=0o1770),
        ),
        ("TYPE=IMAGE,src=app:1,dst=/i,image-subpath=etc", Mount("app:1", "/i", type="image", subpath="etc")),
        ("type=bind,src=/a,dst=/b,consistency=cached", Mount("/a", "/b", consistency="cached")),
    ],
)
def test_long_form_and_the_way_through_the_api(text: str, expected: Mount) -> None:
    found = parse_mount_flag(text)
    assert found == expected
    again, groups = mount_from_api(mount_to_api(found))
    validate(again, options=groups, source_must_exist=False)
    assert again == found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "value is empty"),
        ("type=bind,src=/a", "target is required"),
        ("type=bind,src=/a,dst=", "invalid value for 'dst': value is empty"),
        ("type=bind, src=/a,dst=/b", "option should not have whitespace"),
        ("type=bind,src=/a,dst=/b,wat", "must be a key=value pair"),
        ("type=bind,src=/a,dst=/b,wat=1", "unknown option 'wat'"),
        ("type=bind,src=/a,dst=/b,ro=yes", "invalid boolean value"),
        ("type=bind,src=/a,dst=/b,volume-nocopy", "cannot mix 'volume-*' options with mount type 'bind'"),
        ("type=volume,dst=/b,bind-propagation=shared", "cannot mix 'bind-*' options"),
        ("type=bind,src=/a,dst=/b,tmpfs-mode=700", "cannot mix 'tmpfs-*' options"),
        ("type=tmpfs,dst=/b,tmpfs-size=big", "invalid value for tmpfs-size: big"),
        ("type=tmpfs,dst=/b,tmpfs-mode=999", "invalid value for tmpfs-mode: 999"),
        ("type=bind,src=/a,dst=/b,bind-nonrecursive", "deprecated"),
        ("type=bind,src=/a,dst=/b,bind-recursive=writable", "requires 'readonly'"),
        ("type=bind,src=/a,dst=/b,bind-recursive=readonly,ro", "requires 'bind-propagation=rprivate'"),
        ("type=npipe,src=x,dst=/b", "a named pipe of Windows"),
        ("type=cluster,src=x,dst=/b", "Swarm"),
        ("type=nfs,src=x,dst=/b", "mount type unknown"),
        ('type=bind,"src=/a,dst=/b', "--mount"),
    ],
)
def test_long_form_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_mount_flag(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ({"Type": "volume", "Target": ""}, "field Target must not be empty"),
        ({"Type": "bind", "Target": "/x"}, "field Source must not be empty"),
        ({"Type": "bind", "Source": "rel", "Target": "/x"}, "mount path must be absolute"),
        ({"Type": "bind", "Source": "/no/such/place", "Target": "/x"}, "bind source path does not exist"),
        ({"Type": "bind", "Source": "/", "Target": "/x", "BindOptions": {"Propagation": "up"}}, "invalid propagation"),
        ({"Type": "tmpfs", "Target": "/x", "Source": "y"}, "field Source must not be specified"),
        ({"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [["uid", "1"]]}}, "invalid option: uid"),
        ({"Type": "tmpfs", "Target": "/x", "TmpfsOptions": {"Options": [[]]}}, "invalid option array length"),
        ({"Type": "volume", "Target": "/x", "VolumeOptions": {"Subpath": "a"}}, "anonymous"),
        ({"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "../a"}}, "subpath must be"),
        ({"Type": "image", "Source": "i", "Target": "/x", "ImageOptions": {"Subpath": "/a"}}, "subpath must be"),
        ({"Type": "image", "Source": "i", "Target": "/x", "TmpfsOptions": {}}, "field TmpfsOptions must not"),
        ({"Type": "", "Target": "/x"}, "mount type unknown"),
        ({"Type": "bind", "Target": "/x", "BindOptions": []}, "not an object"),
    ],
)
def test_the_api_refuses(document: dict[str, Any], words: str) -> None:
    def check() -> None:
        mount, groups = mount_from_api(document)
        validate(mount, options=groups)

    with pytest.raises(InvalidInput) as caught:
        check()
    assert words in str(caught.value)


def test_tmpfs_sizes_are_written_as_docker_does() -> None:
    sizes = {1 << 30: "1g", 3 << 20: "3m", 5 << 10: "5k", 1500: "1500"}
    for size, text in sizes.items():
        assert tmpfs_options(Mount("", "/t", True, "tmpfs", tmpfs_size=size, tmpfs_mode=0o700)) == [
            "ro",
            "mode=700",
            f"size={text}",
        ]


def test_volumes_from_has_a_mode() -> None:
    assert split_volumes_from("db") == ("db", "rw")
    assert split_volumes_from("db:ro,z") == ("db", "ro,z")
    for bad in ("", "db:nocopy", "db:rshared", "db:wat"):
        with pytest.raises(InvalidInput):
            split_volumes_from(bad)


CONFIG = ImageConfig({"config": {"Volumes": {"/data": {}, "/logs/": {}}}, "rootfs": {"diff_ids": []}})


def test_precedence_of_what_is_mounted_where() -> None:
    other = [Point("volume", "/data", "theirs"), Point("bind", "/conf", source="/etc"), Point("volume", "/v", "v")]
    spec = ContainerSpec(
        "i",
        mounts=(parse_mount_flag("src=mine,dst=/conf/"), parse_bind("/usr:/v")),
        volumes=("/anon", "/v"),
        volumes_from=("other:ro",),
    )
    found = {point.destination: point for point, _ in plan(spec, CONFIG, lambda _name: other)}
    assert sorted(found) == ["/anon", "/conf", "/data", "/logs", "/v"]
    assert (found["/data"].name, found["/data"].read_write) == ("theirs", False)
    assert (found["/conf"].type, found["/conf"].name) == ("volume", "mine")
    assert (found["/v"].type, found["/v"].source) == ("bind", "/usr")
    assert [found[path].anonymous for path in ("/anon", "/logs", "/conf")] == [True, True, False]
    with pytest.raises(InvalidInput, match="Duplicate mount point: /t"):
        plan(ContainerSpec("i", mounts=(Mount("/usr", "/t"),)), CONFIG, lambda _name: [], ["/t/"])


def test_outer_mounts_come_first_and_the_users_hosts_file_replaces_ours() -> None:
    ours = BindMount("/engine/hosts", "/etc/hosts")
    mounts = [BindMount("/1", "/a/b/c"), BindMount("/2", "/etc"), BindMount("/3", "/a"), BindMount("/4", "/etc/hosts")]
    assert [m.target for m in in_order([*mounts, ours])] == ["/etc", "/a", "/etc/hosts", "/a/b/c"]
    assert ours not in in_order([*mounts, ours])
