"""MUSE: documents to forget, measured six ways (Shi et al. 2024, arXiv 2407.06460)."""
