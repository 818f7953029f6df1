"""What requests and answers are on the wire: their types, and the tensors of the Open Inference Protocol.

Here belongs how something is said, and nothing that is done about it.
"""
