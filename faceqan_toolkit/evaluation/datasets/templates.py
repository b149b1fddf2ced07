"""Templates: several photos or video frames of a person, compared as one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from faceqan_toolkit.errors import SettingsError

ROWS_AT_ONCE = 32_768


@dataclass(frozen=True)
class Templates:
    """Samples of each template. One row is one sample's membership in one template.

    Attributes:
        names: (T,) int64, template numbers of the data set, ascending.
        template: (R,) int64, index into `names`.
        sample: (R,) int64, index of the sample.
        media: (R,) int64, number of the photo or video that the sample comes from.
    """

    names: NDArray[np.int64]
    template: NDArray[np.int64]
    sample: NDArray[np.int64]
    media: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    def embed(
        self, embeddings: NDArray[Any], weights: NDArray[np.float64] | None = None
    ) -> NDArray[np.float32]:
        """Return the templates' embeddings: mean over each medium, sum over media, L2-normalised.

        Samples without an embedding are left out.

        Args:
            embeddings: (N, D) embeddings, NaN rows for samples without. Longer embeddings have more
                weight. A memory-mapped array is read in blocks.
            weights: (N,) weights of the samples within their medium, e.g. the detector's
                confidence; None for equal weights.

        Returns:
            (T, D) float32 of length 1; NaN for a template without embeddings.

        Source: the 1:1 protocol of IJB-C as InsightFace computes it.
        """
        from scipy.sparse import csr_array

        found = np.concatenate(
            [
                np.isfinite(embeddings[start : start + ROWS_AT_ONCE]).all(axis=1)
                for start in range(0, len(embeddings), ROWS_AT_ONCE)
            ]
            or [np.empty(0, np.bool_)]
        )
        rows = np.flatnonzero(found[self.sample])
        share = 1 / np.bincount(self._medium[rows], minlength=1)[self._medium[rows]]
        if weights is not None:
            share = share * weights[self.sample[rows]]
        sums = np.zeros((len(self), embeddings.shape[1]), np.float64)
        samples = self.sample[rows]
        for start in range(0, len(embeddings), ROWS_AT_ONCE):
            block = np.asarray(embeddings[start : start + ROWS_AT_ONCE], np.float32)
            here = (samples >= start) & (samples < start + len(block))
            parts = csr_array(
                (
                    share[here].astype(np.float32),
                    (self.template[rows[here]], samples[here] - start),
                ),
                shape=(len(self), len(block)),
            )
            sums += parts @ np.where(found[start : start + len(block), None], block, np.float32(0))
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        with np.errstate(invalid="ignore"):
            return (sums / np.where(lengths > 0, lengths, np.nan)).astype(np.float32)

    def quality(self, values: NDArray[np.float64], how: str = "min") -> NDArray[np.float64]:
        """Return the templates' qualities.

        Args:
            values: (N,) qualities of the samples; samples with NaN are left out.
            how: "min", "mean" or "max" over the template's samples.

        Returns:
            (T,) float64, NaN for a template without qualities.

        Raises:
            SettingsError: another `how`.
        """
        reduce: dict[str, Callable[..., NDArray[np.float64]]] = {
            "min": np.minimum.reduceat,
            "mean": np.add.reduceat,
            "max": np.maximum.reduceat,
        }
        if how not in reduce:
            raise SettingsError(f"a template's quality is min, mean or max, not {how!r}")
        result = np.full(len(self), np.nan)
        rows = np.flatnonzero(~np.isnan(values[self.sample]))
        if len(rows):
            rows = rows[np.argsort(self.template[rows], kind="stable")]
            present, starts, counts = np.unique(
                self.template[rows], return_index=True, return_counts=True
            )
            result[present] = reduce[how](values[self.sample[rows]], starts)
            if how == "mean":
                result[present] /= counts
        return result

    @cached_property
    def _medium(self) -> NDArray[np.int64]:
        """(R,) consecutive numbers of the (template, medium) pairs, from 0."""
        low = self.media.min(initial=0)
        span = self.media.max(initial=0) - low + 1
        _, numbers = np.unique(self.template * span + self.media - low, return_inverse=True)
        return np.asarray(numbers, np.int64).reshape(-1)
