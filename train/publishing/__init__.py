"""Publish a finished run on the Hub: checks, a clean process, the upload, a Space."""
