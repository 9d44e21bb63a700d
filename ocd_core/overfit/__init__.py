"""Overfitting every sample by itself (Eq. 1)."""
