"""Content of a user's folder: files, layouts, tables, labels."""
