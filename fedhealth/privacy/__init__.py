"""Noise from a cryptographic source, and the accounting of what it costs."""
