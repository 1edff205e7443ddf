"""What the scripts share. One package for each subject; imports run one way, from the scripts down to `errors`."""
