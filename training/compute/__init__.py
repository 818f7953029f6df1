"""Where the arithmetic is done: the machine, and the processes that train one run together.

Nothing here knows what is trained.
"""
