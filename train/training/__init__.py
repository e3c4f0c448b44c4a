"""What every training run shares: run folder, history, optimisation, adapters, processes."""
