"""Quality scores of aligned crops, and measures and hints beside them."""
