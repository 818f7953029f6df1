"""HTTP routes: each parses, delegates and answers."""
