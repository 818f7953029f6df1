"""HTTP routes: each parses, delegates and answers.

Here belongs what depends on the path that is asked.
"""
