"""A run whose worker processes are busy for an hour: `python -m tests.engines.parent RUN`.

The workers import this module as well, so it imports nothing before it knows that it is the parent.
"""

if __name__ == "__main__":
    import multiprocessing
    import sys
    from pathlib import Path

    from faceqan_toolkit.engines.processes import ProcessEngine
    from faceqan_toolkit.photos.find import find_photos
    from faceqan_toolkit.runs.folder import RunWriter
    from faceqan_toolkit.settings import Settings
    from tests.engines.pipelines import sleeping

    samples = Path(__file__).parents[2] / "samples" / "raw_photos"
    settings = Settings(task="detect", detector="yunet", device="cpu")
    with RunWriter(Path(sys.argv[1]), settings, "") as run:
        engine = ProcessEngine(["cpu", "cpu"], make=sleeping)
        found = engine.run(find_photos([str(samples)]), settings, run.crops_folder)
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
        next(found)
