"""Error-versus-discard curves: vectorised against brute force, and IJB-C's number of comparisons.

    python benchmarks/edc.py [--side-by-side 60000] [--full 15658489]

Brute force does what the definition says, as evaluation scripts do: at each of 20 shares it
selects the comparisons that are left, sorts their non-mated similarities and counts, in numpy.
`loops` is the same in plain Python. Both variants, "recompute" (threshold found anew at every
share) and "fixed", at FMR 1e-2, 1e-3 and 1e-4. The two sizes are separate runs: ratios are only
given where both sides did the same comparisons. Similarities and qualities are random numbers;
results are compared, not only times.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from faceqan_toolkit.evaluation.curves import (
    GRID,
    Operating,
    draw_identities,
    edc,
    edc_recomputed,
    pair_quality,
    replicate,
)
from faceqan_toolkit.evaluation.verification import (
    Block,
    Comparisons,
    NonMatedCollector,
    rejected,
)

TARGETS = (1e-2, 1e-3, 1e-4)
Array = np.ndarray[Any, Any]


def made_up(count: int, seed: int = 0) -> tuple[Array, Array, Array]:
    """Return similarity, mated and quality, with IJB-C's share of mated comparisons."""
    rng = np.random.default_rng(seed)
    mated = np.arange(count) < max(1000, count * 19_557 // 15_658_489)
    quality = rng.beta(4, 2, count)
    similarity = np.where(mated, 0.75 * quality, 0) + rng.normal(0, 0.1, count)
    return similarity, mated, quality


def brute_recomputed(similarity: Array, mated: Array, quality: Array) -> list[list[float]]:
    """Select, sort and count at every share, in numpy."""
    ranked = np.argsort(quality, kind="stable")
    rates: list[list[float]] = [[] for _ in TARGETS]
    for share in GRID:
        left = ranked[int(share * len(quality) + 1e-6) :]
        others = np.sort(similarity[left][~mated[left]])[::-1]
        ours = similarity[left][mated[left]]
        for target, row in zip(TARGETS, rates, strict=True):
            threshold = others[int(target * len(others) + 1e-6)]
            row.append(float(np.mean(ours <= threshold)))
    return rates


def loops_recomputed(similarity: Array, mated: Array, quality: Array) -> list[list[float]]:
    """Do the same in plain Python."""
    rows = sorted(zip(quality.tolist(), similarity.tolist(), mated.tolist(), strict=True))
    rates: list[list[float]] = [[] for _ in TARGETS]
    for share in GRID:
        left = rows[int(share * len(rows) + 1e-6) :]
        others = sorted((value for _, value, same in left if not same), reverse=True)
        ours = [value for _, value, same in left if same]
        for target, row in zip(TARGETS, rates, strict=True):
            threshold = others[int(target * len(others) + 1e-6)]
            row.append(sum(value <= threshold for value in ours) / len(ours))
    return rates


def recomputed(similarity: Array, mated: Array, quality: Array) -> list[list[float]]:
    """Return this package's result in the same shape."""
    return [c.fnmr.tolist() for c in edc_recomputed(similarity, mated, quality, TARGETS)]


def brute_fixed(similarity: Array, mated: Array, quality: Array) -> list[list[float]]:
    """Find every threshold by sorting, every rate by selecting."""
    ours, scores = similarity[mated], quality[mated]
    cuts = np.sort(scores)
    rates = []
    for target in TARGETS:
        others = np.sort(similarity[~mated])[::-1]
        threshold = others[int(target * len(others) + 1e-6)]
        rates.append([
            float(np.mean(ours[scores >= cuts[int(share * len(cuts) + 1e-6)]] <= threshold))
            for share in GRID
        ])  # fmt: skip
    return rates


def fixed(similarity: Array, mated: Array, quality: Array) -> list[list[float]]:
    """Return this package's result in the same shape; its curve has every step, not just 20."""
    nobody = np.zeros(np.count_nonzero(~mated), np.int32)
    keep = NonMatedCollector.enough(len(nobody), max(TARGETS))
    collector = NonMatedCollector(keep)
    collector.add(similarity[~mated], nobody, nobody)
    others = collector.result()
    return [
        edc(rejected(similarity[mated], others.at_fmr(target).value), quality[mated])
        .at(GRID + 1e-9)
        .tolist()
        for target in TARGETS
    ]


def timed(what: str, job: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    result = job(*arguments)
    seconds = time.perf_counter() - start
    print(f"  {what:34}{seconds:9.3f} s", flush=True)
    return seconds, result


def side_by_side(count: int) -> None:
    data = made_up(count)
    print(f"{count:,} comparisons, 20 shares, 3 FMR targets")
    for name, ours, others in (
        ("recompute", recomputed, {"numpy": brute_recomputed, "loops": loops_recomputed}),
        ("fixed", fixed, {"numpy": brute_fixed}),
    ):
        seconds, result = timed(f"{name}, faceqan_toolkit", ours, *data)
        for kind, brute in others.items():
            slow, expected = timed(f"{name}, brute force ({kind})", brute, *data)
            assert np.allclose(result, expected), "results differ"
            print(f"  {'':34}{slow / seconds:9.1f} times as long, same result")


def with_intervals(count: int, people: int = 3531, replicates: int = 1000) -> None:
    """Time the bootstrap on IJB-C's numbers of comparisons, people and templates."""
    rng = np.random.default_rng(0)
    identity = np.repeat(np.arange(people), 6)
    mated_count = count * 19_557 // 15_658_489
    person = rng.integers(0, people, mated_count)
    pairs = (
        6 * person + rng.integers(0, 3, mated_count),
        6 * person + 3 + rng.integers(0, 3, mated_count),
    )
    quality = rng.beta(4, 2, len(identity))
    similarity = 0.75 * pair_quality(quality, *pairs) + rng.normal(0, 0.1, mated_count)

    def blocks() -> Iterator[Block]:
        yield similarity, np.ones(mated_count, bool), *pairs
        for start in range(0, count, 1 << 20):
            size = min(1 << 20, count - start)
            first = rng.integers(0, len(identity), size, dtype=np.int32)
            second = rng.integers(0, len(identity), size, dtype=np.int32)
            other = identity[first] != identity[second]
            values = rng.normal(0, 0.1, size)[other]
            yield values, np.zeros(len(values), bool), first[other], second[other]

    def stream() -> Comparisons:
        collector = NonMatedCollector(NonMatedCollector.enough(count, max(TARGETS)), identity)
        return Comparisons.streamed(blocks(), collector, identity)

    print(f"streamed in blocks, {people:,} people, {replicates} replicates, 3 FMR targets")
    _, comparisons = timed("make up and stream", stream)
    timed(
        "bootstrap of one method",
        replicate,
        comparisons,
        comparisons.similarity,
        np.ones(mated_count, bool),
        {"quality": pair_quality(quality, *pairs)},
        [Operating("fmr", target) for target in TARGETS],
        (0.2, 0.3, 1.0),
        draw_identities(people, replicates, 0),
    )


def peak_memory() -> str:
    try:
        import resource
    except ImportError:  # Windows
        return "unknown"
    return f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB (Linux)"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side-by-side", type=int, default=1_000_000)
    parser.add_argument("--full", type=int, default=15_658_489)
    options = parser.parse_args()
    with_intervals(options.full)
    print(f"peak memory so far {peak_memory()}")
    side_by_side(options.side_by_side)
    data = made_up(options.full)
    print(f"{options.full:,} comparisons, 20 shares, 3 FMR targets")
    for name, ours, brute in (
        ("recompute", recomputed, brute_recomputed),
        ("fixed", fixed, brute_fixed),
    ):
        seconds, result = timed(f"{name}, faceqan_toolkit", ours, *data)
        slow, expected = timed(f"{name}, brute force (numpy)", brute, *data)
        assert np.allclose(result, expected), "results differ"
        print(f"  {'':34}{slow / seconds:9.1f} times as long, same result")


if __name__ == "__main__":
    main()
