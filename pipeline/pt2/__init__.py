"""Our own reader of torch.export's ``.pt2`` archives: it decides what a model may be, and runs nobody's code."""
