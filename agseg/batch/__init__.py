"""Many studies: locks, fingerprints, worker processes."""
