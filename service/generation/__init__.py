"""Coupled images: from the specification of a request to the bytes of its response."""
