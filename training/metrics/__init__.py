"""Metrics of generated pairs, each beside its floor."""
