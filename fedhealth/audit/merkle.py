"""The Merkle tree of RFC 9162, section 2.1: append, root, proofs and their checks. No I/O.

``levels[h][i]`` is the hash of the complete subtree over leaves i*2^h .. (i+1)*2^h - 1, so
an append costs two hashes on average and a proof reads a logarithmic number of them.
"""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256

EMPTY_ROOT = sha256(b"").digest()
NodeOf = Callable[[int, int], bytes]
"""Gives the hash of a complete subtree by (height, index); from memory or from tiles."""


def leaf_hash(data: bytes) -> bytes:
    """Return SHA-256(0x00 || data)."""
    return sha256(b"\x00" + data).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return SHA-256(0x01 || left || right)."""
    return sha256(b"\x01" + left + right).digest()


class MerkleTree:
    """An append-only tree over byte strings."""

    __slots__ = ("_levels",)

    def __init__(self, leaves: Iterable[bytes] = ()) -> None:
        """Start with ``leaves``, in order."""
        self._levels: list[list[bytes]] = [[]]
        for leaf in leaves:
            self.append(leaf)

    @property
    def size(self) -> int:
        """Number of leaves."""
        return len(self._levels[0])

    def append(self, data: bytes) -> int:
        """Add a leaf and return its index."""
        self._levels[0].append(leaf_hash(data))
        height = 0
        while len(self._levels[height]) % 2 == 0:
            if height + 1 == len(self._levels):
                self._levels.append([])
            pair = self._levels[height][-2:]
            self._levels[height + 1].append(node_hash(pair[0], pair[1]))
            height += 1
        return self.size - 1

    def node(self, height: int, index: int) -> bytes:
        """Return the hash of the complete subtree over leaves index * 2^height and the 2^height - 1 after it."""
        return self._levels[height][index]

    def root(self, size: int | None = None) -> bytes:
        """Return the root over the first ``size`` leaves, 32 bytes; by default over all.

        Raises:
          ValueError: the tree has fewer leaves.
        """
        return root_of(self.node, self._checked(size))

    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the audit path of leaf ``index`` in the tree of ``size`` leaves.

        Raises:
          ValueError: there is no such leaf or tree.
        """
        return inclusion_path(self.node, index=index, size=self._checked(size))

    def consistency_proof(self, old_size: int, size: int | None = None) -> tuple[bytes, ...]:
        """Return the proof that the tree of ``size`` extends the one of ``old_size``.

        Raises:
          ValueError: there is no such tree, or not 0 < old_size <= size.
        """
        return consistency_path(self.node, old_size=old_size, size=self._checked(size))

    def _checked(self, size: int | None) -> int:
        if size is None:
            return self.size
        if not 0 <= size <= self.size:
            raise ValueError("no such tree")
        return size


def root_of(node: NodeOf, size: int) -> bytes:
    """Return the root over the first ``size`` leaves."""
    return _range(node, 0, size)


def inclusion_path(node: NodeOf, *, index: int, size: int) -> tuple[bytes, ...]:
    """Return the audit path of a leaf.

    Raises:
      ValueError: there is no such leaf.

    Source: RFC 9162, section 2.1.3.1.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf")
    start, end, path = 0, size, []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append(_range(node, middle, end))
            end = middle
        else:
            path.append(_range(node, start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_path(node: NodeOf, *, old_size: int, size: int) -> tuple[bytes, ...]:
    """Return the proof that the tree of ``size`` extends the one of ``old_size``.

    Raises:
      ValueError: not 0 < old_size <= size.

    Source: RFC 9162, section 2.1.4.1.
    """
    if not 0 < old_size <= size:
        raise ValueError("no such older tree")
    start, end, path, is_whole = 0, size, [], True
    while old_size != end:
        middle = start + _split(end - start)
        if old_size <= middle:
            path.append(_range(node, middle, end))
            end = middle
        else:
            path.append(_range(node, start, middle))
            start, is_whole = middle, False
    if not is_whole:
        path.append(_range(node, start, end))
    return tuple(reversed(path))


def _range(node: NodeOf, start: int, end: int) -> bytes:
    """Root over leaves start .. end - 1, where start is aligned as the recursion makes it."""
    if start == end:
        return EMPTY_ROOT
    pieces: list[bytes] = []
    while start < end:
        height = (end - start).bit_length() - 1
        pieces.append(node(height, start >> height))
        start += 1 << height
    result = pieces.pop()
    while pieces:
        result = node_hash(pieces.pop(), result)
    return result


def _split(count: int) -> int:
    """Largest power of two below ``count`` >= 2."""
    return 1 << ((count - 1).bit_length() - 1)


def verify_inclusion(data: bytes, *, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Tell whether ``data`` is leaf ``index`` of the tree of ``size`` leaves with ``root``.

    Source: RFC 9162, section 2.1.3.2.
    """
    if not 0 <= index < size:
        return False
    node, last, result = index, size - 1, leaf_hash(data)
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = node_hash(sibling, result)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(
    *, old_size: int, old_root: bytes, size: int, root: bytes, proof: Sequence[bytes]
) -> bool:
    """Tell whether the tree (size, root) extends the tree (old_size, old_root).

    Source: RFC 9162, section 2.1.4.2.
    """
    if not 0 < old_size <= size:
        return False
    if old_size == size:
        return not proof and old_root == root
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_result = result = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old_result, result = node_hash(sibling, old_result), node_hash(sibling, result)
            while node and not node & 1:
                node, last = node >> 1, last >> 1
        else:
            result = node_hash(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old_result == old_root and result == root
