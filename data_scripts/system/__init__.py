"""What every command needs of the machine: its command line, worker processes, and files that are whole or absent."""
