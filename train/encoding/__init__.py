"""The bulk encoder: its inputs, its encoders, and its resumable output."""
