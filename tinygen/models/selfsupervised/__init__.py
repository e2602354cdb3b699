"""Self-supervision: features learned from images alone, by a task that needs no labels."""
