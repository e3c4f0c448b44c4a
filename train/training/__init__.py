"""Shared by all training runs: run folder, history, optimisation, adapters, processes."""
