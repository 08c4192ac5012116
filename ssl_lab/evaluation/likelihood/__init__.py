"""Likelihoods and perplexities."""
