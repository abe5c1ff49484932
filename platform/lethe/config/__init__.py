"""What a study and a run are: frozen values, one file per family. Imports neither torch nor ray."""
