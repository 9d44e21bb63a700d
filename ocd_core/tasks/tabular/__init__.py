"""Tables: regression, classification, and ranking by regression."""
