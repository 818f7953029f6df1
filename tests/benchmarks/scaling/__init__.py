"""Simulation of autoscaling: which signal misses fewest requests at which cost."""
