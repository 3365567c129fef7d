"""How time grows with the number of tokens, and what fewer keys and values save of it: ours beside ours."""
