"""Room 6: all that is decided before a weight is loaded. `plan` writes exactly what `run` uses."""
