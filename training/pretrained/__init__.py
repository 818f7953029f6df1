"""Networks that learned before a run began, and what they say of its images.

Here belongs a network whose weights are read from a file and never change.
"""
