"""Pickles read as data, against Python's own reader."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import RefusedPickle
from faceqan_toolkit.evaluation.plain_pickle import load_plain

PROTOCOLS = (2, 3, 4, 5)
KEYS = st.one_of(st.text(), st.binary(), st.integers(), st.floats(allow_nan=False))
PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.text(), st.binary(), st.integers(),
              st.floats(allow_nan=False)),
    lambda inner: st.one_of(st.lists(inner), st.dictionaries(KEYS, inner),
                            st.lists(inner).map(tuple)),
    max_leaves=20,
)  # fmt: skip


@settings(deadline=None)
@given(PLAIN, st.sampled_from(PROTOCOLS))
def test_plain_data_comes_back(value: Any, protocol: int) -> None:
    assert load_plain(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["b1", "u1", ">i2", "<i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(0,), (5,), (2, 3), ()])
def test_arrays_come_back(protocol: int, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for stored in (array, np.asfortranarray(array)):
        first, second = load_plain(pickle.dumps([stored, stored], protocol))
        assert first.dtype == stored.dtype
        np.testing.assert_array_equal(first, stored)
        np.testing.assert_array_equal(second, stored)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers_become_pythons(protocol: int) -> None:
    loaded = load_plain(pickle.dumps({"a": np.float64(0.25), "b": np.bool_(True)}, protocol))
    assert loaded == {"a": 0.25, "b": True}
    assert [type(value) for value in loaded.values()] == [float, bool]


def test_old_numpy_and_python_2() -> None:
    """Numpy 1 calls its inner modules `core`; Python 2's texts are bytes."""
    old = pickle.dumps([np.arange(3, dtype=np.uint8)], 2).replace(b"numpy._core", b"numpy.core")
    assert load_plain(old)[0].tolist() == [0, 1, 2]
    # what Python 2.7 writes for ['a\xff', u'b'] with protocol 2
    assert load_plain(b"\x80\x02]q\x00(U\x02a\xffq\x01X\x01\x00\x00\x00bq\x02e.") == [b"a\xff", "b"]


class Command:
    """What an attacker pickles."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        import os

        return os.system, (self.command,)


@pytest.mark.parametrize("protocol", range(6))
def test_a_command_is_refused_and_not_run(protocol: int, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    data = pickle.dumps({"a.jpg": Command(f"echo > {marker}")}, protocol)
    with pytest.raises(RefusedPickle, match="refused"):
        load_plain(data)
    assert not marker.exists()
    pickle.loads(data)  # the attack is a real one
    assert marker.exists()


@pytest.mark.parametrize(
    "value",
    [{1}, frozenset(), 1j, Path, print, np.array(["a"]), np.array([None]), np.zeros(1, "i4,f8"),
     np.dtype("f8"), range(3), Path("a"), np.datetime64("2020")],
)  # fmt: skip
def test_other_things_are_refused(value: Any) -> None:
    with pytest.raises(RefusedPickle):
        load_plain(pickle.dumps([value], 4))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x80\x04",
        b"\x80\x06N.",
        b"\x80\x04.",
        b"\x80\x02Nr\xff\xff\xff\x7f.x"[:7],
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7fa.",  # bytes longer than the file
        b"\x80\x04]}]Ns.",  # a list as a key
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93.",
        b"\x80\x04cposix\nsystem\n.",
        b"\x80\x04h\x05.",
        b"\x80\x04a.",
        b"\x80\x04}(]Nu.",
    ],
)
def test_damaged_ones_are_refused(data: bytes) -> None:
    with pytest.raises(RefusedPickle):
        load_plain(data)


def test_a_huge_memo_index_costs_no_memory() -> None:
    """Python's own reader makes room for everything below it: 32 GB."""
    assert load_plain(b"\x80\x02Nr\xff\xff\xff\x7f.") is None


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_data_or_a_refusal(tail: bytes) -> None:
    with contextlib.suppress(RefusedPickle):
        load_plain(b"\x80\x04" + tail)


@settings(deadline=None)
@given(st.data())
def test_any_damage_gives_data_or_a_refusal(data: st.DataObject) -> None:
    whole = pickle.dumps(([np.arange(4, dtype=np.uint8), b"abc"], [True, np.bool_(False)]), 4)
    place = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(0, 3))
    broken = whole[:place] + data.draw(st.binary(max_size=3)) + whole[place + length :]
    with contextlib.suppress(RefusedPickle):
        load_plain(broken)
