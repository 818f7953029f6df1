"""What runs reached and how they were made, for people to read.

Here belongs what is said of runs that have been measured; measuring is not done here, nor is anything drawn.
"""
