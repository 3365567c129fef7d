"""Making pictures, and each part of it, beside diffusers: real shapes, random weights, the same on both sides."""
