"""What a run shows of itself: tables and figures."""
