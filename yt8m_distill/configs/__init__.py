"""Configuration: dataclasses and the registered experiments. Data only."""
