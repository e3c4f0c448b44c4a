"""What every command needs from the system: a command line, worker processes, and files that are whole or absent."""
