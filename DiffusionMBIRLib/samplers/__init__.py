"""Samplers with one signature: ``sample(prior, consistency, sigmas, x, generator, monitor=...) -> Tensor``."""
