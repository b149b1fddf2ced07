"""Do quality scores predict recognition errors? Data sets, curves, tables and figures."""
