"""The segmentation system: arguments, data, task, evaluation."""
