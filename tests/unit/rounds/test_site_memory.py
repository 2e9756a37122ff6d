"""A site's memory of a round is of what it uploaded, whatever comes after."""

import numpy as np
import pytest

from fedhealth.errors import ProtocolError
from fedhealth.rounds.site_memory import SiteMemory


def test_what_a_round_left_is_kept_once(tmp_path):
    """Rows that changed after the upload must not change what the next round owes of it."""
    memory = SiteMemory(tmp_path, "hospital-01", None)
    uploaded = {"layer": np.float32([1.0, 2.0])}
    memory.keep(3, told=uploaded)
    kept = (tmp_path / "0003.safetensors").read_bytes()
    memory.keep(3, told=uploaded)
    with pytest.raises(ProtocolError, match="rows changed since it first answered round 3"):
        memory.keep(3, told={"layer": np.float32([1.0, 2.5])})
    assert (tmp_path / "0003.safetensors").read_bytes() == kept
    assert [path.name for path in tmp_path.iterdir()] == ["0003.safetensors"]


def test_a_round_with_nothing_to_remember_leaves_no_file(tmp_path):
    SiteMemory(tmp_path, "hospital-01", None).keep(1, personal={}, told={})
    assert list(tmp_path.iterdir()) == []
