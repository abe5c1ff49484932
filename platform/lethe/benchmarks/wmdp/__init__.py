"""WMDP: a field of knowledge to forget (Li et al. 2024, arXiv 2403.03218)."""
