"""What fewer bits in the text encoder cost: embeddings and pictures with and without, beside one another."""
