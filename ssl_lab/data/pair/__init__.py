"""Data modules of images with captions."""
