"""The loop that all trainings share, processes and devices."""
