"""Pretexts: random, batched modules that run on the device."""
