"""What the tests need from the machine, and how they get it."""
