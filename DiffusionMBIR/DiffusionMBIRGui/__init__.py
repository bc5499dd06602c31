"""What the Slicer module delegates to.  Takes scenes and nodes as arguments; never imports torch."""
