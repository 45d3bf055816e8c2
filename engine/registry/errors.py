"""What registries do wrong, in the engine's words: which image, which host, why, and the next step."""

from __future__ import annotations

import json
import ssl

from engine.errors import Corrupt, EngineError, NotFound, Unauthorized, Unavailable

_MIRROR_HINT = (
    "check the network and the spelling of the registry; mirrors are set in registries.json under the data root "
    "or in WORKBENCH_MIRRORS"
)
_LOGIN_HINT = "put credentials in ~/.docker/config.json with `workbench login {host}`, or check the image's name"


class Again(Exception):
    """One attempt failed in a way that may pass. `final` is what to raise when the tries are used up."""

    def __init__(self, final: EngineError, *, after: float | None = None) -> None:
        super().__init__(final.message)
        self.final, self.after = final, after


class Unreachable(Exception):
    """No HTTP answer: the connection was not made (`connecting`), or broke off."""

    def __init__(self, cause: BaseException, *, connecting: bool) -> None:
        super().__init__(reason(cause))
        self.connecting = connecting
        self.certificate = any(isinstance(one, ssl.SSLCertVerificationError) for one in _chain(cause))


def reason(error: BaseException) -> str:
    """Why a connection failed, in as few words as the system has."""
    for one in _chain(error):
        if isinstance(one, ssl.SSLCertVerificationError):
            return f"its TLS certificate is not valid: {one.verify_message}"
        if isinstance(one, ssl.SSLError):
            return f"no TLS there: {one.reason or one.strerror or one}"
        if isinstance(one, TimeoutError):
            return "timed out"
        if isinstance(one, OSError) and one.strerror:
            return one.strerror
    name = type(error).__name__
    return "timed out" if "Timeout" in name else clean(str(error)) or name


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    here: BaseException | None = error
    while here is not None and here not in found:
        found.append(here)
        here = here.__cause__ or here.__context__
    return found[::-1]


def clean(text: str, limit: int = 200) -> str:
    """Foreign text made fit for one line of a terminal: control characters could redraw the screen."""
    line = "".join(char if char.isprintable() else " " for char in text[: limit * 4])
    line = " ".join(line.split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def registry_message(body: bytes) -> str:
    """The messages of a distribution-spec error body; "" when it is none."""
    try:
        document = json.loads(body)
        errors = document["errors"]
        texts = [str(one.get("message") or one.get("code") or "") for one in errors[:3]]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return ""
    return clean("; ".join(filter(None, texts)))


def _because(detail: str) -> str:
    return f": {detail}" if detail else ""


def not_found(what: str, label: str) -> NotFound:
    return NotFound(f"image {what} not found on registry {label}", hint="check the spelling of the name and the tag")


def unauthorized(what: str, label: str, detail: str = "", *, verb: str = "read") -> Unauthorized:
    return Unauthorized(
        f"registry {label} does not let us {verb} {what}{_because(detail)}", hint=_LOGIN_HINT.format(host=label)
    )


def unavailable(label: str, detail: str, *, what: str = "") -> Unavailable:
    doing = f", for {what}" if what else ""
    return Unavailable(f"registry {label} is not available{doing}{_because(detail)}", hint=_MIRROR_HINT)


def bad_certificate(label: str, detail: str) -> Unavailable:
    return Unavailable(
        f"registry {label} cannot be trusted: {detail}",
        hint='install its certificate authority on this host, or name the registry under "insecure" in registries.json',
    )


def refused_address(label: str, address: str, why: str) -> Unavailable:
    return Unavailable(
        f"registry {label} sends us to {clean(address)}, which is refused: {why}",
        hint="the registry (or who answers in its place) is misconfigured or hostile; ask its operator",
    )


def corrupt(what: str, label: str, detail: str) -> Corrupt:
    return Corrupt(
        f"{what} from registry {label} is damaged: {detail}",
        hint="nothing of it was kept; pull again, and if it stays so tell the registry's operator",
    )
