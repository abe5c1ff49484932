"""Files and folders under `LETHE_HOME`, on a disk or in an object store."""
