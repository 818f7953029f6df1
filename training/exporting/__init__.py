"""From a network to one self-describing ONNX file, proven, and what serves it elsewhere.

Here belongs what a file holds; which run it is of is the verb's.
"""
