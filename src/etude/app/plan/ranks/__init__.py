"""A plan for many ranks: what one of them holds, sends, and takes for a step."""
