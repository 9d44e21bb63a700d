"""Novel view synthesis."""
