"""Does a quality score predict recognition errors? Protocols, scores, curves."""
