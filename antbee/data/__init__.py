"""A data folder or zip -> splits of image files -> batches of images and labels."""
