"""Chain IDs: the identity of a layer on top of those below it (image-spec, config.md#layer-chainid)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from engine.oci.digest import Digest


def chain_ids(diff_ids: Sequence[Digest]) -> tuple[Digest, ...]:
    """ChainID(L0) = L0; ChainID(L0|…|Ln) = digest(ChainID(L0|…|Ln-1) + " " + Ln)."""
    return _chain_ids(tuple(diff_ids))


@functools.lru_cache(256)
def _chain_ids(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    chains: list[Digest] = []
    for diff_id in diff_ids:
        chains.append(Digest.of(f"{chains[-1]} {diff_id}".encode()) if chains else Digest(diff_id))
    return tuple(chains)
