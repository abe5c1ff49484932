"""Where metrics and models go: MLflow, or nowhere."""
