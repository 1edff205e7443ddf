"""Where runs and models come from: what is recorded, how a training is reproduced, and how a lineage is read."""
