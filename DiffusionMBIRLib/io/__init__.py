"""Files in and out: volumes, DICOM folders, measurements."""
