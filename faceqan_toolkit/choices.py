"""Values of options that commands and library modules share; imports nothing heavy."""

from __future__ import annotations

FORMATS = ("csv", "jsonl", "parquet")
"""File formats of rankings and other tables."""

WHATS = ("photos", "crops")
"""Units that `filter` decides on."""
BYS = ("best", "worst", "main")
"""Face whose score represents a photo with several faces."""
MODES = ("list", "copy", "move", "link", "symlink")
"""Actions of `filter` on kept files."""
SINKS = ("files", "webdataset", "recordio")
"""Output formats of copies."""
