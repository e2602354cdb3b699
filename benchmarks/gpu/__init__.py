"""The day with a GPU, and what each CUDA kernel takes."""
