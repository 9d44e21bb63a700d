"""Rows of the table, statistics, and the evaluation itself."""
