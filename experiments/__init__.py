"""Runs that choose and compare: not part of the pipeline, nor of the package."""
