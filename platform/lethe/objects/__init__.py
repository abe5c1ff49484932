"""Files in S3, Google Cloud Storage or a folder that is mounted everywhere: the storage root, published studies."""
