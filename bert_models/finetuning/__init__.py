"""Fine-tuning on GLUE and SQuAD, and their official metrics."""
