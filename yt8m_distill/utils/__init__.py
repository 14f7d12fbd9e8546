"""Helpers that know nothing of video classification."""
