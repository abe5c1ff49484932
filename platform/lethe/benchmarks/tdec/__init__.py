"""Training-data extraction (Jang et al. 2022, arXiv 2210.01504): token sequences to forget."""
