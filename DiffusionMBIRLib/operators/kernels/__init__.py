"""Compiled kernels: each needs a package of its own, so that a file of this folder is imported only to be used."""
