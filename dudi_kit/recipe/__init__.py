"""Room 1: YAML in, a checked `Recipe` out. Offline, and without torch (a test says so)."""
