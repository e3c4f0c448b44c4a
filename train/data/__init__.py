"""From a data set to batches: rows, sampler, image cache, augmentation, leak check, provenance."""
