"""Supervised baselines of the paper's tables: networks that are trained on pairs of FBP images and truths."""
