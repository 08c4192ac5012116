"""Using a run on samples of a user's: what a head predicts, features of single files and texts, nearest neighbours."""
