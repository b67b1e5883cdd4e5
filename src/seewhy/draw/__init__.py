"""Pictures of results: values in, picture out."""
