"""Speech separation."""
