"""Pages, tables and plots made from run directories. Imports nothing: lists of runs start at once."""
