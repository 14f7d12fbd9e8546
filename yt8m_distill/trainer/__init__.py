"""What the driver adds to the trainer: checks, workers, screen, progress, epochs."""
