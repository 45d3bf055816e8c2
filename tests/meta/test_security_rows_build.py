"""Published escapes of builders and of archive readers, and the tests here that try each. The rows of the runtime, users, copies and
the network stand beside this, in `test_security_rows`.

A row is a class of attack with the CVEs that showed it; its tests are named `file::test`.
"""

from __future__ import annotations

from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
MOUNTS, LANGUAGE, ADD = "build/test_build_run_mounts.py", "build/test_build_language.py", "build/test_build_add.py"
ARCHIVE, HOSTILE, FUZZ = "engine/test_archive.py", "engine/test_archive_hostile.py", "fuzz/test_fuzz_dockerfile.py"
EXPORT, CACHE = "engine/build/test_build_export.py", "service/test_build_shared_cache.py"

ROWS: dict[str, tuple[str, ...]] = {
    # The builder
    "two steps race over a cache mount's sub-path (CVE-2024-23651)": (f"{MOUNTS}::test_a_path_in_a_cache_stays_in_it",),
    "mount points removed through a step's link (CVE-2024-23652)": (
        f"{MOUNTS}::test_a_mount_point_swapped_by_the_step_takes_nothing_along",
    ),
    "rights that nobody gave (CVE-2024-23653)": (f"{MOUNTS}::test_network_and_rights_are_asked_for",),
    "a malformed Dockerfile ends the engine (CVE-2024-23650, CVE-2021-21285)": (
        f"{FUZZ}::test_parser_and_linter",
        f"{LANGUAGE}::test_mistakes",
    ),
    "a pulled image answers for a step (CVE-2024-24557)": (
        f"{LANGUAGE}::test_a_pulled_image_answers_for_no_step",
        f"{LANGUAGE}::test_what_a_step_sees_is_in_its_key",
        f"{CACHE}::test_a_cache_in_a_registry_and_one_in_an_image",
    ),
    "a cache from elsewhere that lies about a layer": (
        f"{CACHE}::test_a_layer_that_is_not_what_the_cache_says_runs_the_step",
        "fuzz/test_fuzz_cache.py::test_reading_a_cache",
    ),
    "a bind source that is a link to the host (CVE-2024-1753)": (f"{MOUNTS}::test_links_in_a_source_never_lead_out",),
    "mount words that reach the host's mounts (CVE-2024-9407)": (f"{MOUNTS}::test_bad_mounts",),
    "a cache id that is a path (CVE-2024-9675)": (f"{MOUNTS}::test_no_id_names_a_place",),
    "a mount source swapped while it is mounted (CVE-2024-11218)": (
        f"{MOUNTS}::test_links_in_a_source_never_lead_out",
    ),
    "names and ids that are paths (CVE-2026-33747)": (
        f"{MOUNTS}::test_no_id_names_a_place",
        f"{LANGUAGE}::test_a_host_name_is_one",
    ),
    "git addresses, refs and folders (CVE-2026-33748, CVE-2019-13139)": (
        f"{ADD}::test_addresses_that_git_could_misread",
        f"{ADD}::test_a_subdirectory_never_leads_out",
        f"{ADD}::test_no_configuration_or_hook_of_the_host_is_used",
    ),
    "links in a context to files of the host (CVE-2022-4122, CVE-2020-10696)": (
        f"{LANGUAGE}::test_links_to_the_host_are_not_read",
        f"{LANGUAGE}::test_links_in_a_context_stay_in_it",
    ),
    "the host's environment or a secret in a step or a layer (CVE-2021-3602, CVE-2025-4953)": (
        f"{LANGUAGE}::test_nothing_of_the_host_is_in_a_step",
        f"{MOUNTS}::test_secrets",
        f"{MOUNTS}::test_a_secret_is_not_in_the_key",
    ),
    "a server that makes the builder ask another (SSRF), and names that it sends": (
        f"{ADD}::test_addresses_that_a_build_may_not_read",
        f"{ADD}::test_redirects_that_are_not_followed",
        f"{ADD}::test_names_from_a_server",
    ),
    "a Dockerfile that never ends": (f"{FUZZ}::test_inputs_that_are_meant_to_take_long",),
    # Archives: layers, ADD, contexts, load, import
    "links and hard links that lead out (CVE-2014-9356, CVE-2018-15664, CVE-2026-17106)": (
        f"{ARCHIVE}::test_hostile_layer_stays_inside",
        f"{ARCHIVE}::test_a_hard_link_reaches_through_links_and_stays_inside",
        f"{ARCHIVE}::test_a_hard_link_to_a_link_leaves_what_it_points_at_alone",
        f"{HOSTILE}::test_any_members_in_any_order",
        f"{ADD}::test_links_in_an_archive_stay_in_the_destination",
    ),
    "the root's own entry (CVE-2021-29136)": (f"{HOSTILE}::test_contained_or_refused",),
    "names, order, types and numbers (CVE-2007-4559, CVE-2025-4330, CVE-2025-8194)": (
        f"{HOSTILE}::test_contained_or_refused",
        f"{ARCHIVE}::test_component_too_long_for_linux_is_refused",
        f"{ARCHIVE}::test_links_in_a_ring_are_refused",
    ),
    "attributes and devices that forge an overlay": (
        f"{HOSTILE}::test_no_attribute_of_an_archive_is_the_file_systems_own",
        f"{HOSTILE}::test_a_forged_whiteout_hides_nothing",
        f"{ADD}::test_attributes_that_would_forge_an_overlay",
        f"{ADD}::test_files_that_would_delete_others",
    ),
    "bombs (CVE-2017-14992, CVE-2024-6232)": (
        f"{HOSTILE}::test_a_bomb_ends_at_the_limit",
        f"{HOSTILE}::test_many_entries_and_deep_folders_end_at_the_limit",
        f"{ARCHIVE}::test_limits_hold",
    ),
    "archives cut off, and types that lie": (
        f"{HOSTILE}::test_cut_at_every_block",
        f"{HOSTILE}::test_a_compression_that_lies",
        f"{ARCHIVE}::test_kind_that_lies_is_refused",
        "engine/store/test_store_archives.py::test_archives_cut_at_every_block",
        "engine/store/test_store_archives.py::test_archives_that_lie",
    ),
    "an output folder with links in it": (
        f"{EXPORT}::test_a_folder_of_the_destination_that_is_a_link_is_not_entered",
        f"{EXPORT}::test_a_damaged_or_hostile_context_is_refused",
    ),
}


@pytest.mark.parametrize("row", ROWS)
def test_every_row_has_the_tests_that_it_names(row: str) -> None:
    assert ROWS[row]
    for name in ROWS[row]:
        file, _, test = name.partition("::")
        assert f"def {test}(" in (TESTS / file).read_text(), name
