"""`--security-opt`: Docker's words, read. Pure but for the filter's tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import InvalidInput, Unsupported


@dataclass(frozen=True, slots=True)
class SecurityOptions:
    """`seccomp` is None for the default profile, "unconfined", or a profile in Docker's JSON format.
    `apparmor` is "" for the default."""

    no_new_privileges: bool = False
    seccomp: str | dict[str, Any] | None = None
    apparmor: str = ""
    systempaths_unconfined: bool = False

    def seccomp_program(self, capabilities: Sequence[str], *, privileged: bool) -> bytes:
        """The compiled filter; empty for none. Raises InvalidInput for a profile that cannot be compiled."""
        if self.seccomp == "unconfined" or (privileged and self.seccomp is None):
            return b""
        if isinstance(self.seccomp, dict):
            from engine.runtime import seccomp_profile

            return seccomp_profile.program(self.seccomp, capabilities)
        from engine.runtime import seccomp  # the compiler is not needed by the supervisor

        return seccomp.default_program(frozenset(capabilities))

    def seccomp_document(self, capabilities: Sequence[str], *, privileged: bool) -> dict[str, Any] | None:
        """The same filter as OCI's `linux.seccomp`, for a runtime that compiles it itself; None for none."""
        if self.seccomp == "unconfined" or (privileged and self.seccomp is None):
            return None
        from engine.runtime import oci_seccomp, seccomp_profile

        if isinstance(self.seccomp, dict):
            return oci_seccomp.document(seccomp_profile.read_profile(self.seccomp, capabilities))
        return oci_seccomp.document(oci_seccomp.default_profile(capabilities))


def parse_security_options(options: Sequence[str]) -> SecurityOptions:
    """Reads the options; `name=value` and Docker's older `name:value`. Raises InvalidInput, Unsupported."""
    values: dict[str, Any] = {}
    for option in options:
        if option == "no-new-privileges":
            values["no_new_privileges"] = True
            continue
        mark = "=" if "=" in option else ":"
        name, given, value = option.partition(mark)
        if not given:
            raise InvalidInput(f'invalid --security-opt 2: "{option}"', hint="write name=value")
        if name == "no-new-privileges":
            if value not in ("true", "false"):
                raise InvalidInput(f"--security-opt {option}: it is true or false")
            values["no_new_privileges"] = value == "true"
        elif name == "seccomp":
            values["seccomp"] = _profile(value)
        elif name == "apparmor":
            values["apparmor"] = value
        elif name == "systempaths":
            if value != "unconfined":
                raise InvalidInput(f'invalid --security-opt 2: "{option}"', hint="systempaths=unconfined")
            values["systempaths_unconfined"] = True
        elif name == "label":
            if value != "disable":
                raise Unsupported(
                    f"--security-opt {option}: SELinux labels are not set by this engine", hint="label=disable is taken"
                )
        else:
            raise InvalidInput(f'invalid --security-opt 2: "{option}"', hint="seccomp, apparmor, no-new-privileges ...")
    return SecurityOptions(**values)


def _profile(text: str) -> str | dict[str, Any] | None:
    if text == "unconfined":
        return text
    if text in ("builtin", "default"):
        return None
    try:
        profile = json.loads(text)
    except ValueError as error:
        raise InvalidInput(f"Decoding seccomp profile failed: {error}", hint="seccomp=FILE or unconfined") from None
    if not isinstance(profile, dict):
        raise InvalidInput("Decoding seccomp profile failed: it is not a JSON object")
    return profile
