"""ssl_lab in Python: data of any kind in, a run out."""
