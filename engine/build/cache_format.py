"""What a build knows of its steps as a document that travels: to a registry, a folder, or within an image's config.

The form is BuildKit's (solver cache "v0": `layers` with their parents, `records` that point at them), so that its tools can list, copy
and prune it. A record's digest is a step's key here: BuildKit's keys are digests of its own graph, so each reads the other's cache
without error and finds nothing of its own in it. What only this builder needs stands in a record's `workbench` field.

An inline cache is the records alone; its layers are those of the image, in their order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.base.clock import rfc3339
from engine.build.state import State
from engine.errors import Corrupt, InvalidInput
from engine.oci.chain import chain_ids
from engine.oci.descriptor import Descriptor
from engine.oci.digest import Digest

CONFIG = "application/vnd.buildkit.cacheconfig.v0"
MAX_DOCUMENT = 32 << 20  # bytes of a cache's config
_MAX_ENTRIES = 200_000
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Node:
    """One layer as it lies on those below it."""

    layer: Descriptor
    diff_id: Digest
    parent: Digest | None  # the chain ID below


@dataclass(frozen=True, slots=True)
class Found:
    """What a cache document holds: for each step's key what it made, and the number of records that are another builder's."""

    steps: Mapping[str, Mapping[str, Any]]
    others: int = 0


def nodes_of(states: Sequence[State]) -> dict[Digest, Node]:
    """Every layer of `states`, by chain ID, bottom first."""
    found: dict[Digest, Node] = {}
    for state in states:
        below: Digest | None = None
        for layer, diff_id, chain in zip(
            state.layers, state.config.diff_ids, chain_ids(state.config.diff_ids), strict=True
        ):
            found.setdefault(chain, Node(layer, diff_id, below))
            below = chain
    return found


# --- writing --------------------------------------------------------------------------------------------


def write(
    steps: Mapping[str, Mapping[str, Any]], nodes: Mapping[Digest, Node], blobs: Mapping[Digest, Descriptor]
) -> tuple[bytes, list[Descriptor]]:
    """The config, and the layers that its manifest lists. `blobs` are the layers as they go out (compressed, perhaps)."""
    needed = _closure((Digest(step["chain"]) for step in steps.values()), nodes)
    place = {chain: index for index, chain in enumerate(needed)}
    newest = {Digest(step["chain"]): int(step["newest"]) for step in steps.values()}
    layers, listed = [], {}
    for chain in needed:
        node = nodes[chain]
        blob = blobs.get(node.layer.digest, node.layer)
        created = rfc3339(newest.get(chain, 0) * 10**9)
        annotations = {"containerd.io/uncompressed": str(node.diff_id), "buildkit/createdat": created}
        listed[blob.digest] = Descriptor(blob.media_type, blob.digest, blob.size, annotations=annotations)
        layers.append(
            {
                "blob": blob.digest,
                "parent": place[node.parent] if node.parent is not None else -1,
                "annotations": {
                    "mediaType": blob.media_type,
                    "diffID": node.diff_id,
                    "size": blob.size,
                    "createdAt": created,
                },
            }
        )
    records = [_record(key, step, place[Digest(step["chain"])]) for key, step in sorted(steps.items())]
    return _dump({"layers": layers, "records": records}), list(listed.values())


def write_inline(steps: Mapping[str, Mapping[str, Any]], diff_ids: Sequence[Digest]) -> bytes:
    """The records of the steps that made layers of the image. Equal content gives equal bytes: times of running are left out."""
    place = {chain: index for index, chain in enumerate(chain_ids(diff_ids))}
    mine = {key: step for key, step in steps.items() if Digest(step["chain"]) in place}
    return _dump(
        [_record(key, step, place[Digest(step["chain"])], seconds=False) for key, step in sorted(mine.items())]
    )


def _record(key: str, step: Mapping[str, Any], layer: int, *, seconds: bool = True) -> dict[str, object]:
    newest = int(step["newest"])
    more: dict[str, object] = {"version": _VERSION, "size": int(step["size"]), "newest": newest}
    if seconds:
        more["seconds"] = float(step["seconds"])
    result = {"layer": layer, "createdAt": rfc3339(newest * 10**9)}
    return {"digest": f"sha256:{key}", "layers": [result], "workbench": more}


def _closure(wanted: Any, nodes: Mapping[Digest, Node]) -> list[Digest]:
    """`wanted` and all below them, parents first."""
    order: dict[Digest, None] = {}
    for chain in wanted:
        line: list[Digest] = []
        at: Digest | None = chain
        while at is not None and at not in order:
            line.append(at)
            at = nodes[at].parent
        order |= dict.fromkeys(reversed(line))
    return list(order)


def _dump(obj: object) -> bytes:
    return json.dumps(obj, separators=(",", ":"), sort_keys=True).encode()


# --- reading --------------------------------------------------------------------------------------------


def read(raw: bytes, listed: Sequence[Descriptor]) -> Found:
    """A cache's config; `listed` are the layers that its manifest names. Raises `Corrupt`."""
    document = _load(raw)
    if not isinstance(document, dict):
        raise Corrupt("the cache's config is not a JSON object")
    by_digest = {layer.digest: layer for layer in listed}
    layers: list[Node | None] = []
    chains: list[Digest | None] = []
    for index, entry in enumerate(_list(document, "layers")):
        node, chain = _layer(entry, index, by_digest, chains)
        layers.append(node)
        chains.append(chain)
    return _records(_list(document, "records"), layers, chains)


def read_inline(raw: bytes, layers: Sequence[Descriptor], diff_ids: Sequence[Digest]) -> Found:
    """The records in an image's config. Raises `Corrupt`."""
    records = _load(raw)
    if not isinstance(records, list) or len(records) > _MAX_ENTRIES:
        raise Corrupt("the image's inline cache is not a list of records")
    chains = chain_ids(diff_ids)
    nodes = [Node(layer, diff_id, None) for layer, diff_id in zip(layers, diff_ids, strict=True)]
    return _records(records, nodes, chains)


def _load(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise Corrupt(f"the cache's config is not JSON: {error}") from error


def _list(document: Mapping[str, Any], name: str) -> list[Any]:
    found = document.get(name) or []
    if not isinstance(found, list) or len(found) > _MAX_ENTRIES:
        raise Corrupt(f"the cache's {name} are not a list")
    return found


def _layer(
    entry: Any, index: int, listed: Mapping[Digest, Descriptor], chains: Sequence[Digest | None]
) -> tuple[Node | None, Digest | None]:
    """A layer, None where the manifest does not list it, or where it does not say what it unpacks to."""
    try:
        blob, parent = Digest.parse(entry["blob"]), entry.get("parent", -1)
        text = (entry.get("annotations") or {}).get("diffID")
        diff_id = Digest.parse(text) if text else None
    except (TypeError, KeyError, AttributeError, InvalidInput) as error:
        raise Corrupt(f"layer {index} of the cache is malformed") from error
    if not isinstance(parent, int) or isinstance(parent, bool) or not -1 <= parent < index:
        return None, None  # BuildKit may list a parent later; such a layer is no step of ours
    layer = listed.get(blob)
    below = chains[parent] if parent >= 0 else None
    if layer is None or diff_id is None or (parent >= 0 and below is None):
        return None, None
    chain = chain_ids([below, diff_id])[-1] if below is not None else diff_id
    return Node(layer, diff_id, below), chain


def _records(records: Sequence[Any], layers: Sequence[Node | None], chains: Sequence[Digest | None]) -> Found:
    found: dict[str, Mapping[str, Any]] = {}
    others = 0
    for record in records:
        if not isinstance(record, dict):
            raise Corrupt("a record of the cache is not a JSON object")
        more = record.get("workbench")
        if not isinstance(more, dict) or more.get("version") != _VERSION:
            others += 1
            continue
        try:
            key, at = Digest.parse(record["digest"]).hex, record["layers"][0]["layer"]
            size, newest, seconds = int(more["size"]), int(more["newest"]), float(more.get("seconds", 0.0))
            node, chain = layers[at if at >= 0 else len(layers)], chains[at]
        except (TypeError, KeyError, IndexError, ValueError, OverflowError, InvalidInput) as error:
            raise Corrupt("a record of the cache is malformed") from error
        if node is None or chain is None or size < 0 or not 0 <= newest < 2**40:
            continue
        found[key] = {
            "layer": Descriptor(node.layer.media_type, node.layer.digest, node.layer.size).to_json(),
            "diff_id": str(node.diff_id),
            "chain": str(chain),
            "size": size,
            "newest": newest,
            "seconds": max(0.0, seconds),
        }
    return Found(found, others)
