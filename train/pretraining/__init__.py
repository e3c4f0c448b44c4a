"""The pretraining system: arguments, data, starting model, targets, validation."""
