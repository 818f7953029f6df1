"""Losses by name: adversarial losses and penalties, couplings, auxiliary losses, and functions of pixels."""
