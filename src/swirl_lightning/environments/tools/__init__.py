"""Tools and their answers."""
