"""What lies on disk, and how it comes there: whole files or none, HDF5, committed steps, locks."""
