"""Room 7: rollouts, the step, the loop, checkpoints, metrics, and the processes that run them."""
