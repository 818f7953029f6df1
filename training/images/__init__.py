"""What domains learn from: images of sources, fitted, shared out and loaded as bytes in memory.

Here belongs all that happens to images before the first step.
"""
