"""Decisions against plain Python."""

from __future__ import annotations

import math
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faceqan_toolkit.errors import RunError, SettingsError
from faceqan_toolkit.events import Event, Message
from faceqan_toolkit.results.filtering import Rules, Selection, decide
from faceqan_toolkit.results.groups import LAST, IdentityRule
from faceqan_toolkit.settings import Settings
from faceqan_toolkit.types import Record
from tests.ledgers import write_run

Key = tuple[str, str]
QUALITIES = (-0.1, 0.0, 0.25, 0.3, 0.5, 0.7, 0.7000000000000001, 0.71, 1 / 3)


def expected(records: list[Record], rules: Rules) -> set[Key]:
    """Return what is kept, found out the slow way."""

    def order(record: Record) -> tuple:
        return -record.quality, record.path, record.face

    scored = sorted((r for r in records if r.quality is not None), key=order)
    items = [r for r in records if r.face is not None]
    if rules.what == "photos":
        items = []
        for _, rows in groupby(records, key=lambda r: r.path):
            found = sorted(rows, key=lambda r: r.face or 0)
            with_score = sorted((r for r in found if r.quality is not None), key=order)
            if rules.by != "main" and with_score:
                worst = min(with_score, key=lambda r: (r.quality, r.face))
                items.append(with_score[0] if rules.by == "best" else worst)
            else:
                items.append(found[0])
    ranked = sorted((r for r in items if r.quality is not None), key=order)

    def identity(record: Record) -> str | None:
        first, slash, _ = record.path.partition("/")
        return f"{record.root}/{first}" if slash else None

    def holds(record: Record) -> bool:
        if record.status in rules.drop_status:
            return False
        if (rules.per_identity or rules.min_per_identity) and identity(record) is None:
            return False
        if not rules.need_scores:
            return True
        if record.quality is None:
            return False
        of_folder = [r for r in ranked if identity(r) == identity(record)]
        no_better = sum(r.quality <= record.quality for r in scored)
        conditions = (
            rules.min_quality is None or record.quality >= rules.min_quality,
            rules.min_percentile is None or 100 * (no_better / len(scored)) >= rules.min_percentile,
            rules.keep_top is None or ranked.index(record) < rules.keep_top,
            rules.keep_percent is None
            or ranked.index(record) < math.floor(len(ranked) * rules.keep_percent / 100 + 0.5),
            rules.per_identity is None or of_folder.index(record) < rules.per_identity,
        )
        return all(conditions)

    kept = [r for r in items if holds(r)]
    least = rules.min_per_identity or 0
    folders = [identity(r) for r in kept]
    return {(r.path, r.crop) for r in kept if folders.count(identity(r)) >= least}


@st.composite
def runs(draw: st.DrawFn) -> list[Record]:
    records = []
    for number in range(draw(st.integers(0, 10))):
        root = draw(st.sampled_from(["/p", "/p/a"]))
        path = draw(st.sampled_from(["", "a/", "a/b/"])) + f"{number:02d}'.jpg"
        faces = draw(st.integers(0, 3))
        if not faces:
            status = draw(st.sampled_from(["no_face", "unreadable"]))
            records.append(Record(path, root, None, status))
        first = draw(st.integers(0, 1))
        for index in range(first, first + faces):
            quality = draw(st.none() | st.sampled_from(QUALITIES))
            status = "unscorable" if quality is None else "ok"
            crop = f"crops/{path}.{index}.png"
            records.append(Record(path, root, index, status, quality=quality, crop=crop))
    return records


rules_for = st.fixed_dictionaries(
    {},
    optional={
        "min_quality": st.sampled_from(QUALITIES),
        "min_percentile": st.sampled_from([0.0, 10.0, 100 / 3, 50.0, 75.0, 100.0]),
        "keep_top": st.integers(1, 12),
        "keep_percent": st.sampled_from([0.5, 10.0, 50.0, 99.0, 100.0]),
        "per_identity": st.integers(1, 4),
        "min_per_identity": st.integers(1, 3),
        "drop_status": st.sets(st.sampled_from(["ok", "no_face", "unscorable"]), min_size=1),
    },
).filter(
    lambda rules: (
        rules
        and not {"keep_top", "keep_percent"} <= rules.keys()
        and rules.get("min_per_identity", 0) <= rules.get("per_identity", 4)
    )
)


@settings(
    deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(runs(), rules_for, st.sampled_from(["best", "worst", "main", "crops"]))
def test_decisions(tmp_path_factory, records: list[Record], conditions, by: str) -> None:
    what = {"what": "crops"} if by == "crops" else {"by": by}
    if "drop_status" in conditions:
        conditions["drop_status"] = frozenset(conditions["drop_status"])
    rules = Rules(**conditions, **what)
    run = write_run(tmp_path_factory.mktemp("r") / "run", records)
    decisions = list(decide(run, rules))
    assert {(d.path, d.crop) for d in decisions if d.kept} == expected(records, rules)
    assert all(bool(d.rule) == bool(d.reason) for d in decisions)
    judged = [(d.root, d.path, d.crop if by == "crops" else "") for d in decisions]
    assert len(judged) == len(set(judged)), "one decision each"
    with_face = [r for r in records if r.face is not None]
    photos = {r.path for r in records}
    assert len(judged) == (len(with_face) if by == "crops" else len(photos))


def test_the_last_attempt_counts(tmp_path: Path) -> None:
    records = [
        Record("a.jpg", "/p", 0, "ok", quality=0.9),
        Record("b.jpg", "/p", 0, "ok", quality=0.1),
        Record("a.jpg", "/p", None, "missing", attempt=1),
    ]
    run = write_run(tmp_path / "run", records)
    kept = [d.path for d in decide(run, Rules(keep_top=5)) if d.kept]
    assert kept == ["b.jpg"]


def test_reasons_are_for_people(tmp_path: Path) -> None:
    records = [
        *(Record(f"a/{n}.jpg", "/p", 0, "ok", quality=n / 10) for n in range(5)),
        Record("b/x.jpg", "/p", 0, "ok", quality=0.9),
        Record("c.jpg", "/p", None, "no_face", "no face found"),
    ]
    run = write_run(tmp_path / "run", records)
    rules = Rules(min_quality=0.1, min_percentile=50, per_identity=1, min_per_identity=1)
    reasons = {d.path: (d.rule, d.reason) for d in decide(run, rules)}
    assert reasons == {
        "b/x.jpg": ("", ""),
        "a/4.jpg": ("", ""),
        "a/3.jpg": ("per-identity", "not among the best 1 of its identity"),
        "a/2.jpg": ("per-identity", "not among the best 1 of its identity"),
        "a/1.jpg": ("min-percentile", "quality 0.100000 is below percentile 50, which is 0.200000"),
        "a/0.jpg": ("min-quality", "quality 0.000000 is below 0.1"),
        "c.jpg": ("no-score", "no_face: no face found"),
    }
    few = {d.path: d.reason for d in decide(run, Rules(min_quality=0.0, min_per_identity=2))}
    assert few["b/x.jpg"] == "its identity keeps fewer than 2"
    assert few["c.jpg"] == "no_face: no face found"
    dropped = {d.path: d.reason for d in decide(run, Rules(drop_status=frozenset({"no_face"})))}
    assert dropped["c.jpg"] == "status no_face: no face found"
    assert dropped["a/0.jpg"] == ""


def test_who_is_one_identity(tmp_path: Path) -> None:
    paths = ["ann/a/1.jpg", "ann/b/2.jpg", "bob/a/3.jpg", "4.jpg"]
    records = [
        Record(path, "/p", 0, "ok", quality=number / 10)
        for number, path in enumerate(sorted(paths))
    ]
    run = write_run(tmp_path / "run", records)
    table = tmp_path / "who.csv"
    table.write_text("path,identity\n4.jpg,ann\nann/a/1.jpg,ann\n", encoding="utf-8")

    def kept(**rules) -> list[str]:
        return sorted(d.path for d in decide(run, Rules(**rules)) if d.kept)

    assert kept(per_identity=1) == ["ann/b/2.jpg", "bob/a/3.jpg"]
    assert kept(per_identity=1, identity=IdentityRule(LAST)) == paths[:3]
    assert kept(per_identity=1, identity=IdentityRule(table=table)) == ["ann/a/1.jpg"]
    assert kept(min_per_identity=2) == paths[:2]
    assert kept(min_per_identity=2, identity=IdentityRule(table=table)) == ["4.jpg", "ann/a/1.jpg"]
    reasons = {d.path: (d.rule, d.reason) for d in decide(run, Rules(per_identity=1))}
    assert reasons["4.jpg"] == ("no-identity", "its identity is not known")
    told: list[Event] = []
    list(Selection(run, Rules(per_identity=1), tell=told.append).outcomes())
    assert told == [
        Message("identity = first folder, 2 people; 1 photo without an identity: dropped")
    ]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, "say what to keep"),
        ({"min_quality": math.nan}, "`min_quality` is nan"),
        ({"min_percentile": 101}, "in 0..100"),
        ({"keep_top": 0}, "at least 1"),
        ({"keep_percent": 0}, "above 0 %"),
        ({"keep_percent": 101}, "at most 100 %"),
        ({"per_identity": 0}, "at least 1"),
        ({"per_identity": 1, "min_per_identity": 2}, "nothing would be kept"),
        ({"keep_top": 1, "what": "crops", "by": "worst"}, "`by` is for photos"),
    ],
    ids=str,
)
def test_conditions_that_make_no_sense(wrong, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Rules(**wrong)


def test_runs_it_cannot_judge(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", [Record("a.jpg", "/p", 0, "ok")], Settings(task="detect"))
    with pytest.raises(RunError, match="has no scores"):
        decide(run, Rules(keep_top=1))
    assert [d.kept for d in decide(run, Rules(drop_status=frozenset({"no_face"})))] == [True]
    with pytest.raises(SettingsError, match="nonsense: no such status; there are crashed, missing"):
        decide(run, Rules(drop_status=frozenset({"nonsense"})))


@pytest.mark.slow
def test_nothing_needs_more_memory_than_it_has(tmp_path: Path, monkeypatch) -> None:
    """With too little memory for all rows at once, it goes on on the disk."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from faceqan_toolkit.results import filtering
    from faceqan_toolkit.runs.ledger import SCHEMA

    run = write_run(tmp_path / "run", [])
    number = 150_000
    columns = {
        "path": [f"{n % 1000}/{'long' * 30}{n}.jpg" for n in range(number)],
        "quality": [(n * 7919 % number) / number for n in range(number)],
    }
    fixed = {"root": "/p", "face": 0, "status": "ok", "attempt": 0}
    table = pa.table(
        {
            item.name: pa.array(
                columns.get(item.name)
                or [fixed.get(item.name, None if item.nullable else "")] * number,
                item.type,
            )
            for item in SCHEMA
        }
    )
    pq.write_table(table, tmp_path / "run/records/part-000000.parquet")
    connect = filtering.connect

    @contextmanager
    def small(**runs):
        with connect(**runs) as connection:
            connection.execute("SET memory_limit = '50MB'")
            connection.execute("SET threads = 1")
            yield connection

    monkeypatch.setattr(filtering, "connect", small)
    rules = Rules(min_percentile=10, keep_percent=50, per_identity=100, min_per_identity=2)
    kept = sum(d.kept for d in decide(run, rules))
    assert kept == number // 2
