"""Room 8: greedy answers and held-out bits per byte of one model, scored by language. Missing is missing, never 0."""
