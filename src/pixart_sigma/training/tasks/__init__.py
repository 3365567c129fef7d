"""What can be trained: the autoencoder, the text encoder, the transformer. Each is a `Task` of the one loop."""
