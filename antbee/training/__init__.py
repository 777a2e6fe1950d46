"""Training: recipes, the loop, the two modes, cross-validation, few-shot training."""
