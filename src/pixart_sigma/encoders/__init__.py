"""What stands before and behind the transformer: text → caption embeddings, pixels ↔ latents."""
