"""Imports that a command may make: a closed list, and one's own code where it is named."""
