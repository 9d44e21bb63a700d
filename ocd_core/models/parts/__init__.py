"""Building blocks of networks that are no base network by themselves."""
