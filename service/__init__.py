"""Answers HTTP with coupled images drawn by exported models."""
