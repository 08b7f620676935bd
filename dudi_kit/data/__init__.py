"""Room 2: rows → examples → token batches."""
