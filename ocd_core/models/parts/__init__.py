"""Building blocks that are not base networks themselves."""
