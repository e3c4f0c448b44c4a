"""How a checkpoint is measured: one protocol a file, over pure numbers with patient-clustered intervals."""
