"""Published weaknesses of registry clients, and the test that holds each off here. Archives stand in `test_security_rows_build`, the
rest in `test_security_rows`. The numbers are those of our own list of anchors.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
REGISTRY = "engine/registry"
HOSTILE, CREDENTIALS = f"{REGISTRY}/test_registry_hostile.py", f"{REGISTRY}/test_registry_credentials.py"
PULL, RACES = f"{REGISTRY}/test_registry_pull.py", f"{REGISTRY}/test_registry_races.py"
ARCHIVES, NAMES = "engine/store/test_store_archives.py", "engine/oci/test_oci_reference.py"

ROWS: dict[str, tuple[str, ...]] = {
    "RG-01 foreign layers that ask for credentials (2020-15157)": (
        f"{HOSTILE}::test_rg01_foreign_layers_and_their_addresses",
    ),
    "RG-02 credentials that follow a redirect": (
        f"{HOSTILE}::test_rg02_a_redirect_takes_no_credentials_along",
        f"{HOSTILE}::test_rg02_and_rg03_where_a_registry_may_not_send_us",
        f"{HOSTILE}::test_rg02_redirects_without_end",
        f"{REGISTRY}/test_registry_artifacts.py::test_a_list_that_leads_astray",
    ),
    "RG-03 token servers elsewhere (2026-33540)": (f"{HOSTILE}::test_rg02_and_rg03_where_a_registry_may_not_send_us",),
    "RG-04 plain HTTP in the place of TLS (2014-5277 and kin)": (
        f"{HOSTILE}::test_rg04_no_plain_http_where_tls_is_expected",
        f"{CREDENTIALS}::test_certs_d_gives_authorities_and_client_certificates",
        f"{CREDENTIALS}::test_rg04_a_refused_certificate_is_not_answered_by_plain_http",
    ),
    "RG-05 one document of two types (2021-41190)": (f"{HOSTILE}::test_rg05_one_document_of_two_types",),
    "RG-06 bytes that are not their digest": (
        f"{HOSTILE}::test_rg06_bytes_that_are_not_their_digest",
        f"{PULL}::test_a_blob_that_is_wrong_leaves_nothing",
        f"{PULL}::test_a_kept_part_that_is_wrong_costs_a_new_download_and_no_more",
    ),
    "RG-07 digests that are none (2024-3727, 2021-21285)": (
        f"{HOSTILE}::test_rg07_digests_that_are_none",
        f"{ARCHIVES}::test_digests_that_are_none",
    ),
    "RG-08 bodies without end": (
        f"{HOSTILE}::test_rg08_bodies_without_end",
        f"{HOSTILE}::test_rg08_an_encoded_manifest_is_not_unpacked",
        f"{HOSTILE}::test_stalled_bodies_end",
    ),
    "RG-09 documents of an archive without end (2023-25153)": (
        f"{ARCHIVES}::test_a_document_without_end_is_refused_at_its_head",
        f"{ARCHIVES}::test_a_layer_larger_than_the_disk_is_refused_at_its_head",
    ),
    "RG-10 another host's credentials when a helper fails (2021-41092)": (
        f"{CREDENTIALS}::test_a_helper_that_fails_is_an_error_and_no_fallback",
        f"{CREDENTIALS}::test_mirrors_fall_through_and_get_no_credentials_of_the_registry",
    ),
    "RG-11 the folder exchanged while a layer is unpacked (2025-47290)": (
        f"{RACES}::test_rg11_the_folder_exchanged_while_a_layer_is_unpacked",
    ),
    "RG-12 indexes that go in circles": (
        f"{HOSTILE}::test_rg12_indexes_that_go_in_circles_or_on_and_on",
        f"{RACES}::test_rg12_odd_numbers_of_layers",
    ),
    "RG-13 names that are options, paths or too long": (
        f"{NAMES}::test_what_is_no_name_is_refused",
        f"{RACES}::test_rg13_any_text_is_a_name_that_reads_back_or_an_error",
        f"{CREDENTIALS}::test_helper_names_are_names",
        "service/test_ssh.py::test_hosts_that_are_none",
    ),
    "RG-14 a load that moves tags (2026-50195)": (f"{ARCHIVES}::test_a_tag_never_moves_without_a_word",),
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split(" ")[0])
def test_every_row_has_its_test(row: str) -> None:
    for where in ROWS[row]:
        name, _, function = where.partition("::")
        tree = ast.parse((TESTS / name).read_text())
        functions = {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert function in functions, f"{row}: {where} is not there"


def test_no_row_is_left_out() -> None:
    assert [int(row.split(" ")[0].removeprefix("RG-")) for row in ROWS] == list(range(1, 15))
