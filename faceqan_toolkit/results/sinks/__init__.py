"""Where filtered photos go when they do not stay files of their own."""
