"""Training steps on cached features beside a plain loop's, and the rates and kernels that plans rest on."""
