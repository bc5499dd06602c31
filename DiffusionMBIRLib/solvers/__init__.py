"""Solvers on whole volumes: conjugate gradient, the data-consistency step and the classical reconstructions."""
