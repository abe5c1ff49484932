"""The search: proposals, their results in Optuna's storage, Pareto fronts, early stopping. Without Ray and torch."""
