"""Models: found, loaded, replaced while they serve, and run in batches for many requests at once."""
