"""The networks of the five papers, one file per family, and the registry that names them."""
