"""TOFU (Maini et al. 2024, arXiv 2401.06121): questions and answers about invented authors."""
