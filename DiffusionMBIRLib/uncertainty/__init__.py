"""How far off a result may be and where, what of it the data say, and whether the scan is unlike what was calibrated."""
