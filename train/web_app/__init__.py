"""The app that tries a checkpoint in the browser: `app.py` starts it, and a Hub Space runs it."""
