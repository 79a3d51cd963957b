"""What the findings of overfitting and of triggers are worth, measured on trained models."""
