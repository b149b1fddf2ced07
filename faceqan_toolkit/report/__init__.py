"""The page people look at: one HTML file that shows a run."""
