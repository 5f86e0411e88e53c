"""The `training` area of `make bench`."""
