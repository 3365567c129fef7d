"""Evaluation: features of pictures, the judges that read them, and the metrics. Knows nothing of training."""
