"""HTTP routes of the service: each parses, delegates and answers."""
