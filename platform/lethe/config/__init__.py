"""Configuration of studies and runs: frozen values, one module per section. Imports neither torch nor ray."""
