"""From images to images of another domain, by pairs and without."""
