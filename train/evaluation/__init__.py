"""Measure a checkpoint in two steps: predict, then measure.

`predict.py` lets every protocol predict the test rows; `predictions.py` keeps that in one Parquet file a run;
`measure.py` computes the metrics from it, with intervals over resampled patients. Experiments do so fold by fold.

To add a protocol, write one file in `protocols/` with two functions: one predicts (`features, targets -> array` for a
probe), one returns its measures (labels have them in `label_metrics.py`). Call the first in `predict.py` (a probe: one
entry of `PROBES`) and the second in `measure.py` (a probe: nothing to do).
"""

METRICS = "metrics.json"  # in the folder of a run
