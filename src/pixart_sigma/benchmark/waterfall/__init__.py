"""What each optimisation adds: ours with all of them switched off, then one more on at a time, until all are."""
