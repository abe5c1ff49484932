"""What lies in the storage root, whose it is, and how it is freed."""
