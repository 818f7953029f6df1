"""What is minimised: registries of sibling functions, by name.

Here belongs a formula of tensors. What it is applied to, and when, is a step's.
"""
