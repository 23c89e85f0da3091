"""What other distributions carry, and where it is kept."""
