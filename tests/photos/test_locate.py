"""Photos are found again by root and path, and survive pickling."""

from __future__ import annotations

import pickle
from pathlib import Path

from faceqan_toolkit.photos.find import find_photos
from faceqan_toolkit.photos.locate import is_there, locate


def test_what_was_found_is_located(tmp_path: Path) -> None:
    for name in ("a.jpg", "sub/50%41.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    for source in find_photos([tmp_path]):
        again = pickle.loads(pickle.dumps(locate(source.root, source.path)))
        assert again == source
        data, state = again.content.read()
        assert state == again.content.state()
        assert again.place == f"{tmp_path}/{data.decode()}"
    assert is_there(again)
    Path(again.place).unlink()
    assert not is_there(again)
