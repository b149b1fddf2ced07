"""Face recognition networks, one architecture a file; `zoo` is the only wiring."""
