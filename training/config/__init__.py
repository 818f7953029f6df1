"""What an experiment says: frozen dataclasses, a sentence a field, checked where they are built.

Here belongs what a TOML file can hold, and nothing that acts on it.
"""
