"""The Merkle tree against the RFC's recursion and an independent implementation."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymerkle import InmemoryTree, InvalidProof
from pymerkle import verify_consistency as peer_consistency
from pymerkle import verify_inclusion as peer_inclusion
from pymerkle.proof import MerkleProof

from fedhealth.audit.merkle import (
    EMPTY_ROOT,
    MerkleTree,
    leaf_hash,
    node_hash,
    verify_consistency,
    verify_inclusion,
)

LEAVES = st.lists(st.binary(max_size=40), min_size=1, max_size=70)


def rfc_root(leaves: list[bytes]) -> bytes:
    """RFC 9162, section 2.1.1, word by word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaf_hash(leaves[0])
    split = 1
    while split * 2 < len(leaves):
        split *= 2
    return node_hash(rfc_root(leaves[:split]), rfc_root(leaves[split:]))


def test_known_answers() -> None:
    """Roots of the test vectors of the Certificate Transparency reference implementation."""
    leaves = [
        bytes.fromhex(text)
        for text in (
            "",
            "00",
            "10",
            "2021",
            "3031",
            "40414243",
            "5051525354555657",
            "606162636465666768696a6b6c6d6e6f",
        )
    ]
    assert (
        MerkleTree(leaves).root().hex() == "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"
    )
    assert (
        MerkleTree(leaves[:1]).root().hex()
        == "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
    )
    assert MerkleTree().root() == EMPTY_ROOT


@given(LEAVES)
def test_every_prefix_has_the_root_of_the_rfc_and_of_pymerkle(leaves: list[bytes]) -> None:
    tree, peer = MerkleTree(leaves), InmemoryTree(algorithm="sha256")
    for size, leaf in enumerate(leaves, start=1):
        peer.append_entry(leaf)
        assert tree.root(size) == rfc_root(leaves[:size]) == peer.get_root(size)


@given(LEAVES, st.data())
def test_pymerkle_proofs_and_ours_prove_the_same(leaves: list[bytes], data: st.DataObject) -> None:
    tree, peer = MerkleTree(leaves), InmemoryTree(algorithm="sha256")
    for leaf in leaves:
        peer.append_entry(leaf)
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(1, size))
    theirs: MerkleProof = peer.prove_inclusion(index, size)
    peer_inclusion(leaf_hash(leaves[index - 1]), tree.root(size), theirs)
    assert set(tree.inclusion_proof(index - 1, size)) <= set(theirs.path)
    old = data.draw(st.integers(1, size))
    peer_consistency(tree.root(old), tree.root(size), peer.prove_consistency(old, size))
    if old < size:
        with pytest.raises(InvalidProof):
            peer_consistency(b"\x00" * 32, tree.root(size), peer.prove_consistency(old, size))


@given(LEAVES, st.data())
def test_inclusion_is_proven_for_the_leaf_and_nothing_else(leaves: list[bytes], data: st.DataObject) -> None:
    tree = MerkleTree(leaves)
    size = data.draw(st.integers(1, len(leaves)))
    index = data.draw(st.integers(0, size - 1))
    proof, root = tree.inclusion_proof(index, size), tree.root(size)
    assert verify_inclusion(leaves[index], index=index, size=size, proof=proof, root=root)
    assert not verify_inclusion(leaves[index] + b"x", index=index, size=size, proof=proof, root=root)
    assert not verify_inclusion(leaves[index], index=index, size=size, proof=(*proof, root), root=root)
    assert not verify_inclusion(leaves[index], index=size, size=size, proof=proof, root=root)
    for place in range(len(proof)):
        broken = list(proof)
        broken[place] = bytes(32)
        assert not verify_inclusion(leaves[index], index=index, size=size, proof=broken, root=root)
        shorter = proof[:place] + proof[place + 1 :]
        assert not verify_inclusion(leaves[index], index=index, size=size, proof=shorter, root=root)


@given(LEAVES, st.data())
def test_consistency_is_proven_for_a_prefix_and_nothing_else(
    leaves: list[bytes], data: st.DataObject
) -> None:
    tree = MerkleTree(leaves)
    size = data.draw(st.integers(1, len(leaves)))
    old = data.draw(st.integers(1, size))
    proof = tree.consistency_proof(old, size)

    def holds(*, old_root: bytes, root: bytes, proof: tuple[bytes, ...] = proof) -> bool:
        return verify_consistency(old_size=old, old_root=old_root, size=size, root=root, proof=proof)

    old_root, root = tree.root(old), tree.root(size)
    assert holds(old_root=old_root, root=root)
    assert not holds(old_root=bytes(32), root=root)
    assert not holds(old_root=old_root, root=bytes(32))
    assert not holds(old_root=old_root, root=root, proof=(*proof, bytes(32)))
    for place in range(len(proof)):
        broken = (*proof[:place], bytes(32), *proof[place + 1 :])
        assert not holds(old_root=old_root, root=root, proof=broken)


@settings(max_examples=50)
@given(LEAVES, st.data())
def test_any_edit_to_the_log_changes_the_root(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))
    root = MerkleTree(leaves).root()
    edited = [*leaves[:index], leaves[index] + b"\x00", *leaves[index + 1 :]]
    assert MerkleTree(edited).root() != root
    assert MerkleTree(leaves[:index] + leaves[index + 1 :]).root() != root
    assert MerkleTree([*leaves[:index], b"new", *leaves[index:]]).root() != root


def test_what_is_not_there_has_no_root_and_no_proof() -> None:
    tree = MerkleTree([b"a", b"b"])
    for action in (
        lambda: tree.root(3),
        lambda: tree.inclusion_proof(2),
        lambda: tree.inclusion_proof(-1),
        lambda: tree.consistency_proof(0),
        lambda: tree.consistency_proof(2, 3),
    ):
        with pytest.raises(ValueError, match="no such"):
            action()
