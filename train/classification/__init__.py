"""The classification system: arguments, data, task, evaluation."""
