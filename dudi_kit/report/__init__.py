"""Room 9: what a run directory holds, told to people: tables, plots, one HTML page, a model card. Without torch."""
