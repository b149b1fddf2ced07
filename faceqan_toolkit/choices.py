"""Words that a command's options take and the modules behind it understand; nothing heavy."""

from __future__ import annotations

FORMATS = ("csv", "jsonl", "parquet")
"""Of rankings and other tables."""

WHATS = ("photos", "crops")
"""What `filter` judges."""
BYS = ("best", "worst", "main")
"""Which face speaks for a photo."""
MODES = ("list", "copy", "move", "link", "symlink")
"""What `filter` does with what is kept."""
SINKS = ("files", "webdataset", "recordio")
"""What copies are written as."""
