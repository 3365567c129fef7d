"""Training: typed recipes, one loop, and the three tasks it runs. Knows nothing of how data were curated."""
