"""Flows of the coordinator."""
