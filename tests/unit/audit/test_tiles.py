"""Tiles carry the tree: proofs made from them are those of the whole tree, and a changed one proves nothing."""

import pytest

from fedhealth.audit.merkle import (
    MerkleTree,
    consistency_path,
    inclusion_path,
    root_of,
    verify_consistency,
)
from fedhealth.audit.tiles import TiledTree, tile_key, tiles_between
from fedhealth.errors import MissingObjectError, ProtocolError
from fedhealth.exchange import FolderExchange

SIZES = (1, 2, 255, 256, 257, 600)


@pytest.fixture(scope="module")
def tree():
    return MerkleTree(f"entry {number}".encode() for number in range(600))


@pytest.fixture(scope="module")
def tiled(tree, tmp_path_factory):
    """An exchange to which the tiles were put checkpoint by checkpoint."""
    exchange, before = FolderExchange(tmp_path_factory.mktemp("exchange")), 0
    for size in SIZES:
        for key, data in tiles_between(tree.node, old_size=before, size=size):
            exchange.put(key, data)
        before = size
    return exchange


def test_keys_are_those_of_the_specification():
    assert tile_key(0, 0) == "log/tile/0/000"
    assert tile_key(0, 1234) == "log/tile/0/x001/234"
    assert tile_key(1, 1_234_067, width=5) == "log/tile/1/x001/x234/067.p/5"


@pytest.mark.parametrize("size", SIZES)
def test_every_root_and_proof_from_tiles_is_that_of_the_tree(tree, tiled, size):
    nodes = TiledTree(tiled, size).node
    assert root_of(nodes, size) == tree.root(size)
    for index in {0, size // 2, size - 1}:
        assert inclusion_path(nodes, index=index, size=size) == tree.inclusion_proof(index, size)
    for old in {1, size // 2 or 1, size}:
        assert consistency_path(nodes, old_size=old, size=size) == tree.consistency_proof(old, size)


def test_nothing_is_written_twice(tree):
    first = dict(tiles_between(tree.node, old_size=0, size=300))
    later = dict(tiles_between(tree.node, old_size=300, size=600))
    assert not set(first) & set(later)
    assert dict(tiles_between(tree.node, old_size=600, size=600)) == {}


def test_a_changed_tile_proves_nothing(tree, tmp_path):
    exchange = FolderExchange(tmp_path)
    for key, data in tiles_between(tree.node, old_size=0, size=300):
        exchange.put(key, bytes(len(data)) if key == tile_key(0, 1, width=44) else data)
    proof = consistency_path(TiledTree(exchange, 300).node, old_size=260, size=300)
    assert not verify_consistency(
        old_size=260, old_root=tree.root(260), size=300, root=tree.root(300), proof=proof
    )


def test_a_tile_that_is_missing_or_of_a_wrong_size_is_an_error(tree, tmp_path):
    exchange = FolderExchange(tmp_path)
    exchange.put(tile_key(0, 0, width=3), bytes(64))
    with pytest.raises(ProtocolError, match="wrong size"):
        TiledTree(exchange, 3).node(0, 0)
    with pytest.raises(MissingObjectError):
        TiledTree(exchange, 4).node(0, 0)
    with pytest.raises(ValueError, match="no such subtree"):
        TiledTree(exchange, 3).node(1, 1)
