"""What ends or stops a rank, and says so."""
