"""From what a detector counted to line integrals that fit their angles: one step a module, each with its record.

A step takes arrays (views, rows, columns) and gives new ones and a line for the provenance, '' where it did nothing.
"""
