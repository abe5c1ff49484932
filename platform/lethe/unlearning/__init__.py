"""The DeepSpeed engine and the unlearning loop; no Ray."""
