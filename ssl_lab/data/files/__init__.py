"""What lies in a user's folder: files, layouts, tables, labels."""
