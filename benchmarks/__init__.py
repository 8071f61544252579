"""Step times of the optimizers, each beside torch's AdamW in the same run."""
