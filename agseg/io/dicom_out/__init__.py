"""DICOM objects out: SEG, SR and RTSTRUCT of one mask, with the identity of their source. ``write`` is the way in."""
