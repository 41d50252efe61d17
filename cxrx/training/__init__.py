"""Fine-tuning of classifiers, and masked autoencoders."""
