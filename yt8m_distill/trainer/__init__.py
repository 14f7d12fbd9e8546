"""What the driver adds to the trainer: workers, progress, epochs."""
