"""From a registered version to Production: policy, gate, evidence, decisions, and the lock around them."""
