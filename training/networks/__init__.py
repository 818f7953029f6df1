"""Networks: built of rows of tables, drawn at random, updated, averaged and asked.

Here belongs what takes a network as it is, whatever the experiment.
"""
