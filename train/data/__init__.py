"""From a dataset to batches: rows, sampler, image cache, augmentation, leak check, provenance."""
