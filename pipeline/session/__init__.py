"""A training from its run to its log: open the run, train, save, deliver. Stands on all other packages."""
