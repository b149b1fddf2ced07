"""Why a face has its score, in pictures."""
