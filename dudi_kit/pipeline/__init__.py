"""The stations in order, each function the work of a command. Sees every room."""
