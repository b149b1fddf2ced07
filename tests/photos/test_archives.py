"""Members of archives: each name is taken once."""

from __future__ import annotations

import pytest

from faceqan_toolkit.errors import UnreadablePhoto
from faceqan_toolkit.photos.archives import Names


def test_the_first_of_a_name_is_taken() -> None:
    names = Names()
    assert [names.take(name) for name in ("a", "b", "a", "../a")] == [True, True, False, False]
    assert [names.take(name, new) for name, new in (("c", True), ("d", False))] == [True, False]
    with pytest.raises(UnreadablePhoto, match=r"broken; the 3 photos .* left out 2 .* e\.g\. 'a'"):
        names.finish("broken")
