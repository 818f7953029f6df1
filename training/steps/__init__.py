"""A step of training: what is drawn and shown, what it costs, and what it changes.

Here belongs what applies objectives to networks and images as an experiment says.
"""
