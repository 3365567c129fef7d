"""Metrics: numbers from features, embeddings and readings. They know nothing of the models that made these."""
