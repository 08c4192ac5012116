"""Use a run on your own samples: predictions of a head, features, nearest neighbours."""
