"""Checkpoints as folders: a student taken out, a network brought in."""
