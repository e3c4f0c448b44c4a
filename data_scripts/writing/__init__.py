"""Rows into a folder that `datasets.load_dataset` reads: plan, parts, shards, card and build report."""
