"""Simulated videos in the format of the releases."""
