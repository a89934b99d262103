"""What a computation costs in time: devices as values, estimates by roofline, measurements, compilers as judges."""
