"""Readers of the data sets that recognition is measured on, one a file."""
