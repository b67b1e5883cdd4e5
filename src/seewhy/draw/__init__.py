"""Images of results: values in, image out."""
