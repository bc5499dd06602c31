"""Training of 2D priors from folders of volumes."""
