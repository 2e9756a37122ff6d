"""Flows of a site's worker."""
