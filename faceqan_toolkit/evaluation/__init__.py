"""How well quality predicts recognition errors: verification, error-versus-discard curves."""
