"""Static tiles of the log's tree, after C2SP tlog-tiles: whoever reads them can prove without reading the entries.

    log/tile/0/000          hashes of the leaves 0 .. 255
    log/tile/0/x001/234     tile 1234 of level 0
    log/tile/1/000.p/17     the first 17 hashes of tile 0 of level 1, each over 256 leaves

A tile never changes; one that is not full yet stands under its width, and a wider one follows. Nothing is believed because
a tile says so: proofs made from tiles are checked against signed roots.
"""

import re
from collections.abc import Iterator

from fedhealth.audit.merkle import NodeOf, node_hash
from fedhealth.errors import ProtocolError
from fedhealth.exchange.store import Exchange

TILES = "log/tile/"
HEIGHT = 8
WIDTH = 1 << HEIGHT
_HASH_BYTES = 32
_KEY = re.compile(r"(?P<level>\d{1,2})/(?P<index>(x\d{3}/){0,4}\d{3})(\.p/(?P<width>\d{1,3}))?")


def tile_key(level: int, index: int, *, width: int = WIDTH) -> str:
    """Return the exchange key of a tile: of level ``level``, the ``index``-th, of ``width`` hashes."""
    groups = [f"{index % 1000:03d}"]
    while index := index // 1000:
        groups.insert(0, f"x{index % 1000:03d}")
    partial = "" if width == WIDTH else f".p/{width}"
    return f"{TILES}{level}/{'/'.join(groups)}{partial}"


def tiles_between(node: NodeOf, *, old_size: int, size: int) -> Iterator[tuple[str, bytes]]:
    """Give the tiles, by key, that a tree of ``size`` leaves has and one of ``old_size`` had not."""
    level = 0
    while (count := size >> HEIGHT * level) > 0:
        before = old_size >> HEIGHT * level
        if count > before:
            for index in range(before // WIDTH, -(-count // WIDTH)):
                width = min(WIDTH, count - index * WIDTH)
                yield tile_key(level, index, width=width), _hashes(node, level, index, width)
        level += 1


def check_tile(key: str, data: bytes, *, node: NodeOf, size: int) -> None:
    """Return when a tile under ``key`` is one of the tree of ``size`` leaves.

    Raises:
      ProtocolError: it is not.
    """
    found = _KEY.fullmatch(key.removeprefix(TILES))
    level = int(found["level"]) if found else 0
    index = int(found["index"].replace("x", "").replace("/", "")) if found else 0
    width = int(found["width"] or WIDTH) if found else 0
    is_there = index * WIDTH + width <= size >> HEIGHT * level
    if not found or key != tile_key(level, index, width=width) or not is_there:
        raise ProtocolError(f"{key} is no tile of this log", "treat the log as forged")
    if data != _hashes(node, level, index, width):
        raise ProtocolError(f"{key} does not fit the entries", "treat the log as forged")


def _hashes(node: NodeOf, level: int, index: int, width: int) -> bytes:
    return b"".join(node(HEIGHT * level, index * WIDTH + offset) for offset in range(width))


class TiledTree:
    """The nodes of a tree of ``size`` leaves, read from its tiles as they are asked for."""

    def __init__(self, exchange: Exchange, size: int) -> None:
        """Nothing is read yet."""
        self._exchange, self._size = exchange, size
        self._tiles: dict[tuple[int, int], bytes] = {}

    def node(self, height: int, index: int) -> bytes:
        """Return the hash of a complete subtree (see `MerkleTree.node`).

        Raises:
          MissingObjectError: its tile is not there.
          ProtocolError: its tile has a wrong size.
          ValueError: the tree has no such subtree.
        """
        if index + 1 << height > self._size:
            raise ValueError("no such subtree")
        level, above = divmod(height, HEIGHT)
        first = index << above
        hashes = [self._hash(level, place) for place in range(first, first + (1 << above))]
        while len(hashes) > 1:
            hashes = [node_hash(hashes[i], hashes[i + 1]) for i in range(0, len(hashes), 2)]
        return hashes[0]

    def _hash(self, level: int, place: int) -> bytes:
        index, offset = divmod(place, WIDTH)
        if (level, index) not in self._tiles:
            self._tiles[level, index] = self._read(level, index)
        return self._tiles[level, index][offset * _HASH_BYTES : (offset + 1) * _HASH_BYTES]

    def _read(self, level: int, index: int) -> bytes:
        width = min(WIDTH, (self._size >> HEIGHT * level) - index * WIDTH)
        key = tile_key(level, index, width=width)
        data = self._exchange.get(key, max_bytes=WIDTH * _HASH_BYTES)
        if len(data) != width * _HASH_BYTES:
            raise ProtocolError(f"{key} has a wrong size", "do not rely on this log; ask the coordinator why")
        return data
