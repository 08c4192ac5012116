"""The run directory: its layout, writing, reading, finding."""
