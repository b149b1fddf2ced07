"""What is made of a run: rankings, selections, calibrations, groups, training sets."""
