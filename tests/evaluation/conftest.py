from __future__ import annotations

import dataclasses

import pytest

from faceqan_toolkit.evaluation.options import EvaluationOptions
from faceqan_toolkit.evaluation.result import Evaluation, Method
from faceqan_toolkit.evaluation.statistics import evaluate_methods
from tests.evaluation.synthetic import world

HOSTILE = "</script><b onclick=x>_$a^2$&|*"


@pytest.fixture(scope="session")
def evaluations() -> list[Evaluation]:
    """Two data sets and two recognisers, one combination missing, names that must be escaped."""
    made = []
    for number, (dataset, recogniser) in enumerate(
        [("LFW", "sface"), ("XQLFW", "sface"), ("LFW", HOSTILE)]
    ):
        seen = world(25, seed=number)
        methods = seen.methods() | {HOSTILE: Method(-seen.damage)}
        made.append(
            evaluate_methods(
                seen.comparisons(), methods, dataset=dataset, recogniser=recogniser,
                options=EvaluationOptions(
                    fmr_targets=(0.1, 0.001), replicates=30, draws=10, template_quality="min"
                ),
            )
        )  # fmt: skip
    return made


@pytest.fixture(scope="session")
def plain(evaluations: list[Evaluation]) -> Evaluation:
    """One without intervals."""
    seen = world(25)
    return evaluate_methods(
        dataclasses.replace(seen.comparisons(), identity=None), seen.methods(), dataset="LFW",
        recogniser="sface", options=EvaluationOptions(fmr_targets=(0.1,), draws=10),
    )  # fmt: skip
