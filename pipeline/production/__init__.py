"""The model in Production at work: it is loaded, kept up to date, and asked."""
