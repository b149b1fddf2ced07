"""The recognition model of a run, to be loaded again. No torch until then."""

from __future__ import annotations

from pathlib import Path

from faceqan_toolkit.errors import RunError
from faceqan_toolkit.files import is_file
from faceqan_toolkit.models.load import FoundModel, find_model
from faceqan_toolkit.models.registry import is_factory
from faceqan_toolkit.runs.folder import RunInfo


def model_of(run: RunInfo, named: str | None = None) -> FoundModel:
    """Return the recognition model that scored a run.

    Run folders are untrusted: a model that is Python code is loaded only if the user names it too.

    Args:
        run: a run with scores.
        named: the model that the user gave; None if they gave none.

    Raises:
        RunError: the model is code that the user has not named, its weights have changed, or the
            user named another model.
        WeightsError: see `find_model`.
    """
    settings = run.settings
    model = settings.model.name
    if named is not None and named != model:
        raise RunError(f"{run.folder} was made with --model {model}, not {named}")
    if named is None and is_factory(model) and not is_file(Path(model)):
        raise RunError(
            f"{run.folder} was made with the code {model}; if you trust it, run it with "
            f"--model {model}"
        )
    found = find_model(model, settings.model.options)
    made_with = (run.content.get("model") or {}).get("sha256")
    if made_with and made_with != found.sha256:
        raise RunError(
            f"{run.folder} was made with other weights of {model}; put those back, or score the "
            "photos into a new run"
        )
    return found
