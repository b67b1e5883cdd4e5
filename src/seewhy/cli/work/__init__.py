"""What the commands do, one file a command; each is imported when its command is given."""
