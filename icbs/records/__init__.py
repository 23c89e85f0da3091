"""What a run reads, records and shows."""
