"""The model card, filled from the files of a run."""
