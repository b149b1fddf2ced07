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
from faceqan_toolkit.evaluation import safe_pickle
from faceqan_toolkit.evaluation.safe_pickle import load_pickle, read_pickle

PROTOCOLS = range(6)
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
    assert load_pickle(pickle.dumps(value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["b1", "u1", ">i2", "<i4", "i8", "f4", "f8"])
@pytest.mark.parametrize("shape", [(0,), (5,), (2, 3), ()])
def test_arrays_come_back(protocol: int, dtype: str, shape: tuple[int, ...]) -> None:
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    for stored in (array, np.asfortranarray(array)):
        data = pickle.dumps([stored, stored], protocol)
        first, second = load_pickle(data)
        assert first.dtype == pickle.loads(data)[0].dtype
        np.testing.assert_array_equal(first, stored)
        np.testing.assert_array_equal(second, stored)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpy_numbers_become_pythons(protocol: int) -> None:
    loaded = load_pickle(pickle.dumps({"a": np.float64(0.25), "b": np.bool_(True)}, protocol))
    assert loaded == {"a": 0.25, "b": True}
    assert [type(value) for value in loaded.values()] == [float, bool]


def test_old_numpy() -> None:
    """Numpy 1 calls its inner modules `core`."""
    old = pickle.dumps([np.arange(3, dtype=np.uint8)], 2).replace(b"numpy._core", b"numpy.core")
    assert load_pickle(old)[0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "data",
    [
        b"(lp0\nS\"a\\xff\\n'\"\np1\naVb\\u1234\np2\naI01\naL1L\na(dp3\nS'c'\np4\nF0.5\nsa.",
        b"(lp1\nS\"a\\xff\\n'\"\np2\naVb\\u1234\np3\naI01\naL1L\na(dp4\nS'c'\nF0.5\nsa.",
        b"]q\0(U\x04a\xff\n'q\x01X\x04\0\0\0b\xe1\x88\xb4q\x02I01\nL1L\n}q\x03U\x01cq\x04G?\xe0\0\0\0"
        b"\0\0\0se.",
        b"]q\x01(U\x04a\xff\n'q\x02X\x04\0\0\0b\xe1\x88\xb4q\x03I01\nL1L\n}q\x04U\x01cG?\xe0\0\0\0\0\0\0se.",
        b"\x80\x02]q\0(U\x04a\xff\n'q\x01X\x04\0\0\0b\xe1\x88\xb4q\x02\x88\x8a\x01\x01}q\x03U\x01cq\x04G?\xe0"
        b"\0\0\0\0\0\0se.",
        b"\x80\x02]q\x01(U\x04a\xff\n'q\x02X\x04\0\0\0b\xe1\x88\xb4q\x03\x88\x8a\x01\x01}q\x04U\x01cG?\xe0\0\0"
        b"\0\0\0\0se.",
    ],
    ids=["pickle 0", "cPickle 0", "pickle 1", "cPickle 1", "pickle 2", "cPickle 2"],
)
def test_python_2(data: bytes) -> None:
    """What Python 2.7.18 writes for ["a\\xff\\n'", u"b\\u1234", True, 1L, {"c": 0.5}]."""
    assert load_pickle(data) == [b"a\xff\n'", "b\u1234", True, 1, {b"c": 0.5}]


def test_an_array_of_python_2() -> None:
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR"
        b"(I1\n(I3\ntcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\n"
        b"S'\\xff\\x00a'\ntb."
    )
    assert load_pickle(array).tolist() == [255, 0, 97]


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
        load_pickle(data)
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
        load_pickle(pickle.dumps([value], 4))


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
        b"(i__main__\nx\n.",
        b"\x80\x02)\x81.",
        b"\x82\x01.",
        b"Pid\n.",
        b"Nc_codecs\nencode\n}X\x01\x00\x00\x00aK\x01sb.",  # a state for one of our own functions
        b"cnumpy\nndarray\n)\x81.",
        b"L" + b"9" * 5000 + b"L\n.",
    ],
)
def test_damaged_ones_are_refused(data: bytes) -> None:
    with pytest.raises(RefusedPickle):
        load_pickle(data)


def test_a_huge_memo_index_costs_no_memory() -> None:
    """Python's reader in C makes room for everything below it: 32 GB."""
    assert load_pickle(b"\x80\x02Nr\xff\xff\xff\x7f.") is None


def test_deep_nesting() -> None:
    """To hash such a tuple, as a key of a dictionary, would end the process."""
    deep = b")" + b"\x85" * 200_000
    value = load_pickle(b"\x80\x02" + deep + b".")
    assert len(value) == 1
    for data in (b"}" + deep + b"Ns.", b"}(" + deep + b"Nu.", b"(" + deep + b"Nd."):
        with pytest.raises(RefusedPickle):
            load_pickle(b"\x80\x02" + data)


def test_references_are_not_expanded() -> None:
    """Lists of twice the list before: 2**200 values if they were."""
    level = b"]q\x00" + b"".join(b"](h%ch%ceq%c" % (n, n, n + 1) for n in range(200))
    assert len(load_pickle(b"\x80\x02" + level + b".")) == 2


def test_a_large_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.bin").write_bytes(pickle.dumps([1, 2]))
    assert read_pickle(tmp_path / "a.bin") == [1, 2]
    monkeypatch.setattr(safe_pickle, "LARGEST", 10)
    with pytest.raises(RefusedPickle, match="more than"):
        read_pickle(tmp_path / "a.bin")


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_give_data_or_a_refusal(tail: bytes) -> None:
    with contextlib.suppress(RefusedPickle):
        load_pickle(b"\x80\x04" + tail)
    with contextlib.suppress(RefusedPickle):
        load_pickle(tail)


@settings(deadline=None)
@given(st.data())
def test_any_damage_gives_data_or_a_refusal(data: st.DataObject) -> None:
    whole = pickle.dumps(([np.arange(4, dtype=np.uint8), b"abc"], [True, np.bool_(False)]), 4)
    place = data.draw(st.integers(0, len(whole) - 1))
    length = data.draw(st.integers(0, 3))
    broken = whole[:place] + data.draw(st.binary(max_size=3)) + whole[place + length :]
    with contextlib.suppress(RefusedPickle):
        load_pickle(broken)
