"""Layer scores (Eq. 3)."""
