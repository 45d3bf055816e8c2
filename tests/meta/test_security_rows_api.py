"""Published weaknesses of container engines' APIs (the anchor's table of the API and the daemon), and the tests that hold each off."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
STEADY, STREAMS, TLS = "rest/test_rest_steady.py", "rest/test_rest_streams.py", "rest/test_rest_tls.py"

ROWS: dict[str, tuple[str, ...]] = {
    "AP-01 the socket's rights while it is made (2014-3499)": (
        f"{STEADY}::test_ap01_a_socket_is_never_open_to_others",
    ),
    "AP-02 TCP without authentication (2025-9074)": (
        f"{STEADY}::test_ap02_no_tcp_without_certificates",
        f"{TLS}::test_a_client_of_another_authority_is_refused",
    ),
    # Host is not looked at: the one TCP listener asks for a client's certificate, which no page of another name gets a browser to show.
    "AP-03 pages in a browser": (
        f"{STEADY}::test_ap03_pages_get_nothing",
        "rest/test_rest_http.py::test_a_form_from_a_browser_is_refused",
        "rest/test_rest_websocket.py::test_handshakes",
    ),
    "AP-04 a body read in two ways (2024-41110)": (
        f"{STEADY}::test_ap04_nothing_is_read_twice_or_differently",
        "rest/test_rest_http.py::test_length_and_chunks_together_are_refused",
        f"{STREAMS}::test_names_of_fields_are_read_in_any_case",
    ),
    "AP-05 huge bodies": (
        f"{STEADY}::test_ap05_a_body_without_end_is_refused_early",
        f"{STEADY}::test_a_large_archive_streams_both_ways",
        "rest/test_rest_http.py::test_expect_continue",
    ),
    "AP-06 slow clients": (f"{STEADY}::test_ap06_a_thousand_half_open_requests",),
    "AP-07 odd paths, queries and headers": (
        f"{STEADY}::test_ap07_odd_paths_queries_and_headers",
        "rest/test_rest_http.py::test_malformed_requests_get_a_4xx",
    ),
    "AP-08 output without bound, streams that leak (2022-31030)": (
        f"{STEADY}::test_ap08_output_that_nobody_reads_is_not_kept",
        f"{STEADY}::test_50_event_streams_and_20_stalled_readers",
        f"{STREAMS}::test_an_exec_whose_client_leaves_goes_on_and_is_told",
        f"{STREAMS}::test_many_attached_clients_that_leave_are_forgotten",
    ),
    "AP-10 credentials in files (2019-13509)": ("rest/test_rest_registries.py::test_no_credentials_are_kept",),
    "AP-11 parallel calls on one name (2024-36620)": (f"{STEADY}::test_ap11_one_name_from_all_sides",),
    # AP-09 is the network's (its rows stand in test_security_rows); AP-12 is words: README says that the group is root.
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_the_tests_that_it_names(row: str) -> None:
    for where in ROWS[row]:
        file, _, name = where.partition("::")
        tree = ast.parse((TESTS / file).read_text())
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert name in functions, where
