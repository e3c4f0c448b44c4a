"""How a checkpoint is measured: one protocol a file, over pure numbers with patient-clustered intervals."""

METRICS = "metrics.json"  # in the folder of a run
