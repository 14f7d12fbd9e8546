"""Metrics, results of evaluations, the baseline and the report."""
