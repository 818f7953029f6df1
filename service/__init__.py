"""Answers HTTP with coupled images drawn by exported models."""

__version__ = "0.1.0"
