"""Protocols that score features, samples and likelihoods."""
