"""What each shortcut saves, and what it costs: pictures with it beside the exact ones of the same prompts and seeds."""
