"""Images to train on and to measure with: sources, preprocessing, labels, image sets in memory."""
