"""The entries of views dealt to the places of two sparse matrices, compiled by numba; see :mod:`..slice_matrix`."""

from __future__ import annotations

from .footprints_numba import compiled


@compiled
def deal(ray, pixel, value, first_ray, free_of_ray, free_of_pixel, by_ray, by_pixel):
    """One view: each entry to the next free place of its ray in A and of its pixel in A^T.

    by_ray, by_pixel: (indices, values) of A and A^T.  free_of_ray, free_of_pixel: moved on.
    """
    (pixels, values), (rays, turned) = by_ray, by_pixel
    for n in range(ray.size):
        r, p = ray[n], pixel[n]
        at, to = free_of_ray[r], free_of_pixel[p]
        pixels[at], values[at], rays[to], turned[to] = p, value[n], first_ray + r, value[n]
        free_of_ray[r], free_of_pixel[p] = at + 1, to + 1
