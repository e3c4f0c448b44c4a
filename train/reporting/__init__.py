"""Reports, cards and figures of runs and experiments."""
