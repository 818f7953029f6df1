"""What is kept of a run in its folder, read again, and shown.

Here belongs what a file of a run is, and what writes it as the run goes.
"""
