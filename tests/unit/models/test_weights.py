import numpy as np
import pytest
from safetensors.numpy import save

from fedhealth.errors import ProtocolError
from fedhealth.models import weights as w
from fedhealth.models.statistics import Statistics

MODEL = {
    "layers.1.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "layers.0.bias": np.array([7, 8], dtype=np.float32),
}


def test_the_flat_order_is_the_sorted_name():
    np.testing.assert_array_equal(w.flatten(MODEL), [7, 8, 0, 1, 2, 3, 4, 5])


def test_unflatten_inverts_flatten():
    back = w.unflatten(w.flatten(MODEL), MODEL)
    assert list(back) == sorted(MODEL)
    assert w.digest(back) == w.digest(MODEL)
    with pytest.raises(ValueError, match="does not fit"):
        w.unflatten(np.zeros(7, dtype=np.float32), MODEL)


def test_bytes_depend_on_values_alone():
    reordered = dict(reversed(MODEL.items()))
    fortran = {name: np.asfortranarray(array) for name, array in MODEL.items()}
    assert w.to_bytes(reordered) == w.to_bytes(MODEL) == w.to_bytes(fortran)
    changed = {**MODEL, "layers.0.bias": np.array([7, 9], dtype=np.float32)}
    assert w.digest(changed) != w.digest(MODEL)


def test_bytes_come_back():
    back = w.from_bytes(w.to_bytes(MODEL))
    assert list(back) == sorted(MODEL)
    for name, array in MODEL.items():
        np.testing.assert_array_equal(back[name], array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"garbage",
        w.to_bytes(MODEL)[:-1],
        save({"a": np.zeros(2, dtype=np.float64)}),
        save({"a": np.array([np.inf], dtype=np.float32)}),
        save({"a": np.array([np.nan], dtype=np.float32)}),
    ],
)
def test_what_is_not_finite_float32_safetensors_is_refused(data):
    with pytest.raises(ProtocolError):
        w.from_bytes(data)


def statistics(**changes):
    values = {
        "mean": np.zeros(3, dtype=np.float32),
        "sd": np.ones(3, dtype=np.float32),
        "median": np.zeros(3, dtype=np.float32),
        "count": np.full(3, 5.0),
    }
    return Statistics(**{**values, **changes})


def test_statistics_come_back():
    one = statistics(mean=np.array([1, 2, 3], dtype=np.float32))
    back = Statistics.from_bytes(one.to_bytes())
    assert back.to_bytes() == one.to_bytes()
    np.testing.assert_array_equal(back.mean, [1, 2, 3])


def test_a_vocabulary_travels_with_its_statistics_and_none_changes_no_byte():
    plain = statistics()
    told = statistics(vocabulary={"b": ("x|1", "x|é"), "a": ()})
    assert Statistics.from_bytes(told.to_bytes()).vocabulary == {"a": (), "b": ("x|1", "x|é")}
    assert statistics(vocabulary={"a": (), "b": ("x|1", "x|é")}).to_bytes() == told.to_bytes()
    arrays = {name: getattr(plain, name) for name in ("mean", "sd", "median", "count")}
    assert plain.to_bytes() == save(arrays)
    assert Statistics.from_bytes(plain.to_bytes()).vocabulary == {}


def with_metadata(text):
    one = statistics()
    arrays = {name: getattr(one, name) for name in ("mean", "sd", "median", "count")}
    return save(arrays, metadata={"vocabulary": text})


@pytest.mark.parametrize(
    "data",
    [
        with_metadata("["),
        with_metadata("[]"),
        with_metadata("3"),
        with_metadata('{"a": 3}'),
        with_metadata('{"a": [3]}'),
        with_metadata('{"a": ["y", "x"]}'),
        with_metadata('{"a": ["x", "x"]}'),
        with_metadata("[" * 100_000),
        b"garbage",
        save({"mean": np.zeros(3, dtype=np.float32)}),
        statistics(sd=np.zeros(3, dtype=np.float32)).to_bytes(),
        statistics(mean=np.array([0, 0, np.nan], dtype=np.float32)).to_bytes(),
        statistics(mean=np.zeros(4, dtype=np.float32)).to_bytes(),
        statistics(mean=np.zeros(3)).to_bytes(),
    ],
)
def test_malformed_statistics_are_refused(data):
    with pytest.raises(ProtocolError):
        Statistics.from_bytes(data)
