"""The segmentation system: arguments, data, variation, task, evaluation."""
