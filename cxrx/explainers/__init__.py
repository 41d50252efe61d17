"""Attribution methods: which pixels a classifier's logit rests on. Each runs under a guard that restores the model."""
