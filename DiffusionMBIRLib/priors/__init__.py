"""Diffusion priors behind one contract: ``denoise(x, sigma) = E[x0 | x0 + sigma n = x]``."""
