"""Experiments compare systems: spec, folds, runner, measures."""
