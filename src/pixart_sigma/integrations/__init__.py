"""Classes that live inside other libraries' pipelines."""
