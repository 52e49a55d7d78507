"""Archives: DICOMweb and DIMSE behind one ``Archive``, the folder that images arrive in, the objects that may be sent."""
