"""HTTP around every route: ports, connections, limits, keys, bodies, problems, and what is known already.

Here belongs what a request passes whatever it asks for; nothing here knows of images.
"""
