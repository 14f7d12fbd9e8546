"""Export and prediction with trained networks."""
