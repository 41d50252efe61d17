"""The streaming run: films in, predictions and maps out, in batches, resumable at any moment."""
