"""Asking a model behind an OpenAI-compatible HTTP endpoint: client, retries, journal of answers, what a server can do, cost."""
