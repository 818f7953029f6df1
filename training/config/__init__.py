"""Recipes as frozen dataclasses, checked when they are built."""
