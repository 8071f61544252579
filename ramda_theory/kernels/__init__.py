"""The steps of the methods in place on lists of torch tensors, one engine per package."""
