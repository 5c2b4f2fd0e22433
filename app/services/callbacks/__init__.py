"""Telling whoever asked: signed messages to a request's callback, stored, retried, replayable."""
