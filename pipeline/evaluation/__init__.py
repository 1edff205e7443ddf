"""How good a model is: its answers on labelled images, the metrics, and their record."""
