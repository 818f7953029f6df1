"""Models at work: found, opened, swapped while they serve, and run for many requests at once.

Here belongs what runs a model or says which are served, whoever asks and however it is said.
"""
