"""What frozen models answered, kept on disk: asked once, read by every later epoch, run and rank."""
