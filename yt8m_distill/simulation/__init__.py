"""Simulated videos in the format of the YouTube-8M releases."""
