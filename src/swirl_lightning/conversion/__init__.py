"""Model files in and out: GGUF, taming checkpoints, Hugging Face folders, wider vocabularies."""
