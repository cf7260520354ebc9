"""The terminal: parse, call, show. One module per command; ships as forensics.cli."""
