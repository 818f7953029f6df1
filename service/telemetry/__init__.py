"""What can be seen of the service from outside: logs, metrics and traces.

Here belongs how something is told. What is told, and when, is where it happens.
"""
