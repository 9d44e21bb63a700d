"""Trained runs that travel: what prediction needs, as one folder of data that loads anywhere.

A folder below this one is a bundle that comes with the package.
"""
