"""Rows are stored privately and read strictly; attrition hides small cells."""

import stat
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from fedhealth.errors import DataError
from fedhealth.features import Attrition, Rows, load_rows, save_rows
from fedhealth.features.attrition import Step


def some_rows() -> Rows:
    features = np.array([[1.0, np.nan], [2.0, 0.0], [3.0, 1.0]], dtype=np.float32)
    return Rows(
        features,
        np.array([[0], [1], [0]], dtype=np.float32),
        np.array([-7, 2**62, 5], dtype=np.int64),
        np.array([True, False, False]),
        levels=np.array([[0], [1], [-1]], dtype=np.int32),
        level_names=(("urn:x|a", "urn:x|b"),),
    )


def test_rows_survive_a_round_trip_and_only_the_owner_reads_them(tmp_path: Path) -> None:
    path, rows = tmp_path / "rows.safetensors", some_rows()
    save_rows(path, rows)
    again = load_rows(path)
    for name in ("features", "labels", "person", "is_test", "series", "levels", "groups"):
        np.testing.assert_array_equal(getattr(again, name), getattr(rows, name))
        assert getattr(again, name).dtype == getattr(rows, name).dtype
    assert again.level_names == rows.level_names
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["rows.safetensors"]


def test_folds_part_the_rows() -> None:
    rows = some_rows()
    assert rows.training().person.tolist() == [2**62, 5]
    assert rows.test().person.tolist() == [-7]
    assert len(rows.training()) + len(rows.test()) == len(rows)


@pytest.mark.parametrize(
    "data",
    [b"", b"not safetensors", save({"labels": np.zeros(2, dtype=np.float32)})],
    ids=["empty", "text", "incomplete"],
)
def test_other_bytes_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows.safetensors"
    path.write_bytes(data)
    with pytest.raises(DataError):
        load_rows(path)


def test_small_counts_and_small_differences_are_hidden() -> None:
    counts = [100, 95, 80, 80, 69, 7, 0]
    attrition = Attrition(tuple(Step(str(n), 2 * n, n) for n in counts))
    assert [one["patients"] for one in attrition.public()] == [100, None, 80, 80, 69, None, 0]
