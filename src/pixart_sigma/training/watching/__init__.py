"""Watching a run: progress, metrics, trackers, the report and the model card. Knows nothing of what is trained."""
