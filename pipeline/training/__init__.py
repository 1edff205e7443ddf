"""The training: configuration, networks, augmentations, the loop, calibration. Knows nothing of MLflow."""
