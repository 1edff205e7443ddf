"""Own images: find them, check them, report what was found."""
