"""Trying credentials on a registry, as `login` does before it keeps them."""

from __future__ import annotations

from dataclasses import replace

from engine.base.cancel import CancelToken
from engine.errors import Unauthorized
from engine.registry.config import Credentials, RegistryConfig
from engine.registry.errors import Again
from engine.registry.net import Network
from engine.registry.transport import Session, repeating


def try_login(domain: str, credentials: Credentials, config: RegistryConfig) -> None:
    """Returns when `domain` accepts `credentials`. Raises `Unauthorized`, `Unavailable`."""
    endpoint = config.registry(domain)
    stop = CancelToken()
    network = Network(config, stop, replace(config.retry, tries=2))
    session = Session(endpoint, lambda: credentials, network, "its base", "see")

    def attempt() -> None:
        with session.request("GET", "/v2/", "", {}, ok=(200,)):
            pass

    try:
        repeating(network.retry, network.cancel, attempt)
    except Unauthorized as error:
        raise Unauthorized(
            f"registry {endpoint.label} does not accept the name and password",
            hint="check both; where two-factor login is on, a personal access token stands for the password",
        ) from error
    except Again as error:
        raise error.final from error
    finally:
        stop.cancel()
