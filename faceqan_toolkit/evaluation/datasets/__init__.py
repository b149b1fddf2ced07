"""Readers of recognition data sets, one module for each."""
