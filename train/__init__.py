"""Training, evaluation and reporting of LumbarCLIP."""
