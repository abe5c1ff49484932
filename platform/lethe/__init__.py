"""lethe: studies of LLM unlearning. Importing this loads nothing else."""

__version__ = "0.1.0"
