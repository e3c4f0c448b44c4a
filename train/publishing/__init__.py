"""What stands between a finished run and the Hub: checks, a clean process, the card, the upload, a Space."""
