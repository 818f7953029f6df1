"""A training step: batches, both updates, the state they change, the machine and its processes."""
