"""Published weaknesses of container engines, and the test that holds each off here, or why there is none.

RT: what a container is started with and what enters it; US: users, groups and files read from the root; CP: copies in and
out; NW: the network. A row is one weakness or one kind of them. That the rows hold for OCI runtimes too is theirs to see to;
what the engine does before them has its tests in `test_runtime_contract`.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
ESCAPES, SECURITY = "engine/runtime/test_runtime_escapes.py", "engine/runtime/test_runtime_security.py"
COPY, NETWORK = "service/test_copy.py", "service/test_network.py"

ROWS: dict[str, tuple[str, ...]] = {
    "RT-01 the host's programs overwritten from inside (2019-5736)": (
        f"{ESCAPES}::test_rt01_the_hosts_programs_cannot_be_overwritten",
    ),
    "RT-02 a joining process traced (2016-9962)": (
        f"{ESCAPES}::test_rt02_what_enters_leads_nowhere",
        f"{ESCAPES}::test_rt02_what_joins_its_processes_leads_nowhere",
    ),
    "RT-03 descriptors that lead out (2024-21626)": (
        f"{ESCAPES}::test_rt03_no_descriptor_leads_out",
        f"{SECURITY}::test_only_the_standard_streams_are_open",
        f"{SECURITY}::test_a_working_directory_behind_a_descriptor_is_refused",
    ),
    "RT-04 a mount's target exchanged (2021-30465)": (f"{ESCAPES}::test_rt04_rt11_racing_links_at_mount_targets",),
    "RT-05 /proc or /sys as a link (2019-19921)": (
        f"{ESCAPES}::test_rt05_rt06_kernel_file_systems_cannot_be_covered",
        f"{SECURITY}::test_a_kernel_directory_that_is_a_link_is_refused",
    ),
    "RT-06 a volume over /proc (2019-16884)": (
        f"{ESCAPES}::test_rt05_rt06_kernel_file_systems_cannot_be_covered",
        f"{ESCAPES}::test_rt06_rt09_a_decoy_is_not_written_to",
    ),
    "RT-07 /dev/null exchanged before masking (2025-31133)": (f"{ESCAPES}::test_rt07_masks_are_the_null_device",),
    "RT-08 /dev/pts exchanged under the console (2025-52565)": (f"{ESCAPES}::test_rt08_the_console_is_the_terminal",),
    "RT-09 writes to /proc led elsewhere (2025-52881)": (
        f"{ESCAPES}::test_rt09_sysctls_arrive_and_nowhere_else",
        f"{ESCAPES}::test_rt06_rt09_a_decoy_is_not_written_to",
    ),
    "RT-10 /dev as a link out (2026-41579)": (f"{ESCAPES}::test_rt10_a_dev_that_leads_out",),
    "RT-11 mount points made on the host (2024-45310)": (f"{ESCAPES}::test_rt04_rt11_racing_links_at_mount_targets",),
    "RT-12 lengths that overflow into settings (2021-43784)": (
        f"{ESCAPES}::test_rt12_lengths_are_no_way_into_the_settings",
    ),
    "RT-13 inheritable capabilities (2022-24769 and kin)": (
        f"{SECURITY}::test_capabilities",
        f"{SECURITY}::test_an_exec_is_confined_as_the_container",
        "service/test_engine.py::test_isolation_is_dockers",
    ),
    "RT-14 control groups writable from inside (2023-25809)": (
        f"{ESCAPES}::test_rt14_the_groups_are_not_writable",
        "service/test_rootless.py::test_without_a_control_group",
    ),
    "RT-15 device rules as a deny-list": (
        f"{ESCAPES}::test_rt15_a_disk_that_was_made_does_not_open",
        "engine/linux/test_linux_device_filter.py",
    ),
    "RT-16 kernel interfaces that the filter must close (2022-0492 and kin)": (
        f"{ESCAPES}::test_rt16_the_kernel_refuses_what_the_filter_names",
        "engine/runtime/test_runtime_seccomp.py::test_what_reaches_the_host_is_refused",
    ),
    "RT-17 sysctls of the host (2022-0811)": (
        "engine/runtime/test_runtime_namespaces.py::test_sysctls_that_reach_the_host",
    ),
    "RT-18 an image's words as the engine's settings (2024-3154)": (
        f"{ESCAPES}::test_rt18_an_images_words_set_nothing",
    ),
    "RT-19 abstract sockets (2020-15257)": (f"{ESCAPES}::test_rt19_nobody_but_its_user_speaks_to_the_engine",),
    "RT-20 keystrokes into the caller's terminal (TIOCSTI)": (
        f"{ESCAPES}::test_rt20_no_terminal_but_its_own",
        f"{ESCAPES}::test_rt20_the_callers_terminal_is_not_inherited",
    ),
    "RT-21 escape sequences in what is shown": (
        "meta/test_security_rows.py::test_rt21_errors_and_tables_drive_no_terminal",
        "workbench/test_state.py::test_nothing_drives_the_terminal",
        "workbench/test_hostile_words.py::test_rt21_nothing_of_a_container_drives_the_terminal",
    ),
    "US-01 a number looked up as a name (2016-3697, 2026-46680)": (
        "engine/runtime/test_runtime_users.py",
        "engine/runtime/test_runtime_contract.py::test_environment_user_groups_and_folder",
    ),
    "US-02 ids that wrap (2024-40635)": (f"{ESCAPES}::test_us02_ids_that_wrap",),
    "US-03 exec as a number (2026-30892)": (f"{ESCAPES}::test_us03_exec_as_a_number",),
    "US-04 a group that is shut out (2022-36109)": (f"{ESCAPES}::test_us04_a_group_that_is_shut_out_is",),
    "US-05 endless passwd and group files (2026-47262)": (
        f"{ESCAPES}::test_us05_big_and_endless_files",
        f"{ESCAPES}::test_us05_a_start_with_such_a_file",
    ),
    "US-06 the host's files read through links (2024-9676)": (
        f"{ESCAPES}::test_us06_what_a_link_leads_to_is_not_opened",
        f"{ESCAPES}::test_us05_us06_files_that_are_traps",
    ),
    "US-07 line breaks that become entries (2022-4318)": (f"{ESCAPES}::test_us07_no_second_lines",),
    "US-08 files of the engine written through links (2024-5154)": (
        f"{ESCAPES}::test_us08_us10_engine_files_over_links",
    ),
    "US-09 a working directory made through a link (2026-55686)": (
        f"{ESCAPES}::test_us09_a_working_directory_through_a_link",
    ),
    "US-10 links under the engine's own mounts (2024-9341)": (f"{ESCAPES}::test_us08_us10_engine_files_over_links",),
    "US-11 variables filled from the host (2026-57231)": (f"{ESCAPES}::test_us11_variables_without_a_value",),
    "US-12 labels of an image as the engine's own (2026-53488)": (
        "service/test_labels.py::test_us12_labels_of_an_image_change_nothing",
    ),
    "US-13 programs of the image run on the host (2022-1227)": (
        "service/test_usage.py::test_no_program_of_the_image_looks_at_it",
        f"{COPY}::test_cp_02_and_03_nothing_of_the_image_is_run",
    ),
    "CP-01 a folder exchanged during cp (2018-15664)": (f"{COPY}::test_cp_01_a_directory_exchanged_for_a_link",),
    "CP-02 libraries of the image loaded (2019-14271)": (f"{COPY}::test_cp_02_and_03_nothing_of_the_image_is_run",),
    "CP-03 decompressors of the image run (2026-41567)": (f"{COPY}::test_cp_02_and_03_nothing_of_the_image_is_run",),
    "CP-04 a volume's place exchanged (2026-41568)": (f"{COPY}::test_cp_04_a_volume_whose_place_is_exchanged",),
    "CP-05 modes of the host changed (2021-41089)": (f"{COPY}::test_cp_05_modes_of_the_host_stay",),
    "CP-06 links followed on the host (2019-10152)": (f"{COPY}::test_cp_06_links_are_the_containers_own",),
    "CP-07 layers open to other users (2021-41091)": (
        "service/test_volumes.py::test_no_other_user_gets_to_a_layer_or_a_volume",
    ),
    "NW-01 names of an internal network asked outside (2024-29018)": (
        f"{NETWORK}::test_nw_01_nothing_of_an_internal_network_leaves",
    ),
    "NW-02 IPv6 where none was asked for (2024-32473)": (
        f"{NETWORK}::test_nw_02_no_ipv6_address_without_ipv6_and_one_with_it",
    ),
    "NW-03 rules flushed by others (2025-54388)": (
        f"{NETWORK}::test_nw_03_what_another_program_flushes_is_restored_and_said",
        "engine/runtime/test_runtime_firewalld.py::test_the_bridges_are_in_a_zone_that_lets_them_pass",
    ),
    "NW-04 router advertisements from a container (2020-13401)": (
        f"{NETWORK}::test_nw_04_the_bridge_takes_no_router_advertisements",
    ),
    "NW-05 the cloud's metadata": (f"{NETWORK}::test_nw_05_metadata_is_refused_where_asked_and_from_build_steps",),
    "NW-06 ports of the loopback from outside": (f"{NETWORK}::test_nw_06_a_loopback_port_is_the_loopbacks_alone",),
}

# That these tests fail without what they are tests of was tried, row by row, by taking it out (a check, a flag of an open, a
# call) in a copy of the tree. Where there is nothing to take out, the weakness was put in: a program of the image run by `top`
# (US-13) or `cp` (CP-03), a descriptor left open (RT-03). Not tried: RT-12, since no message of ours has a length that could
# overflow, and US-12, since nothing reads an image's labels.

# Parts of rows that cannot be run here, and why.
WITHOUT = {
    "RT-06, RT-09 labels": "the kernels of our runs have neither AppArmor nor SELinux active, so that `attr/current` says "
    "nothing; that the write of a label goes to procfs itself and to no decoy is tested, and which label on a recorded tree",
    "RT-15 on cgroup v2": "the hosts of our runs have v1 device controllers; the BPF program is run by an interpreter "
    "(tests/engine/runtime/bpf.py)",
    "RT-16 32-bit": "no 32-bit C library on the hosts of our runs; the filter's answers for that architecture are computed",
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.split(" ")[0])
def test_every_row_has_its_test(row: str) -> None:
    for where in ROWS[row]:
        name, _, function = where.partition("::")
        tree = ast.parse((TESTS / name).read_text())
        functions = {one.name for one in tree.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}
        assert any(one.startswith("test_") for one in functions)
        assert not function or function in functions, f"{row}: {where} is not there"


def test_rt21_errors_and_tables_drive_no_terminal() -> None:
    from engine.cli.tables import table
    from engine.errors import DockerfileError, EngineError

    hostile = "a\x1b]52;c;aGk=\x07b\x1b[2Jc\x9b2Jd\u202ee\rf"
    error = EngineError(f"registry: {hostile}", hint=hostile)
    located = DockerfileError(hostile, file="Dockerfile", line=1, source=hostile)
    for shown in (str(error), error.hint or "", str(located), table(["A", "B"], [[hostile, hostile]])):
        assert not [one for one in shown if one != "\n" and not one.isprintable()], repr(shown)
        assert "]52;c;aGk=" in shown, "the words stay"
