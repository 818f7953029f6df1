"""How good pairs are, in numbers.

Here belongs what is reported of a run, beside its floor.
"""
