"""Prefect tasks: one library call each, with a retry policy and a run name."""
