"""How far off a result may be, what of it the data say, and whether the scan is unlike what was calibrated."""
