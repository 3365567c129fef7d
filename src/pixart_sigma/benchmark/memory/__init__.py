"""The memory that parts and pictures take, beside what the plan predicts: real shapes, random weights."""
