"""Networks from latent vectors to images, one family per file: decoders of autoencoders and generators of GANs."""
