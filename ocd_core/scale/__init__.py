"""The scale network (Eq. 8)."""
