"""Raw studies to a folder that `datasets.load_dataset` reads."""
