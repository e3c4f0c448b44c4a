"""The pretraining system: arguments, initial model, task, statistics of batches."""
