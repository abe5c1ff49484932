"""Training data: rows, prompts as token ids, refusals, and the batches of each optimizer step."""
