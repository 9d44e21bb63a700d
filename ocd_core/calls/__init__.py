"""`ocd_core.OCD`: the pipeline for a network, a loss and data that are given in Python, without a params file."""
