"""What client, agent and coordinator agree on: words, messages, checks of a job."""

__version__ = "0.1.0"
