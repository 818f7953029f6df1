"""From an order to an encoded answer: latents, their coupled images, and the files made of them.

Here belongs what decides the bytes of an answer, by whichever route it was asked.
"""
