"""Faces: detected or read from a file, and chosen."""
