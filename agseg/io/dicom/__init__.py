"""DICOM CT in: a file's header, series in order of position, pixels to HU. ``read`` holds the only LPS -> RAS line."""
