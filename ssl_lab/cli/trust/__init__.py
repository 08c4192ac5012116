"""What a command may import: a closed list, and one's own code where it is named."""
