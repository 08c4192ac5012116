"""Finding and ranking by similarity."""
