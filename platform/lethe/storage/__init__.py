"""Files and folders under `LETHE_HOME`, which is a folder or the address of an object store."""
