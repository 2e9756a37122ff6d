"""The bulletin board through which everything travels: stores, envelopes, posting and reading."""

from fedhealth.exchange.board import Board, read_object
from fedhealth.exchange.envelope import LIMITS, Header, Limits, Opened, seal, unseal
from fedhealth.exchange.folder import FolderExchange
from fedhealth.exchange.store import Exchange, hasty_url, open_exchange

__all__ = [
    "LIMITS",
    "Board",
    "Exchange",
    "FolderExchange",
    "Header",
    "Limits",
    "Opened",
    "hasty_url",
    "open_exchange",
    "read_object",
    "seal",
    "unseal",
]
