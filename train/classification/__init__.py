"""The classification system: arguments, data, evaluation."""
