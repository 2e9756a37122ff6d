"""Prefect flows: order, branching, state names; and the ``fedhealth`` command."""
