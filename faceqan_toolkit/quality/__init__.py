"""Quality scores, measures and hints of aligned crops."""
