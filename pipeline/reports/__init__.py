"""What people look at: figures, the checklist of an evaluation, runs side by side."""
