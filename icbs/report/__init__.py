"""What a run did, for people: tables for a terminal, pictures, and a page of HTML."""
