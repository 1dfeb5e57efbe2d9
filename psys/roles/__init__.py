"""What each process of a job does, one module for each role."""
