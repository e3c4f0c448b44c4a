"""The bulk encoder: what it reads, what it encodes with, and how an interrupted run goes on."""
