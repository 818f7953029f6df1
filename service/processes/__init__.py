"""Several processes that are one service: begun by the first, handed connections, and told of changes.

Here belongs how processes meet and talk, and nothing of what they have to say.
"""
