"""What is done to images in memory: functions from tensors to tensors, by name.

Here belongs what knows neither where images come from nor what they are for.
"""
