"""Face recognition networks: found by name or file, loaded, verified, and run on aligned crops."""
