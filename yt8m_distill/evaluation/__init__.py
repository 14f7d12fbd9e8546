"""Metrics, results, baseline and report."""
