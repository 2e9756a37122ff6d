"""A site's steps, in its own worker."""
