"""Room 5, the mathematics of the objective, pure: tensors in, sums and counts out. Imports torch and nothing else."""
