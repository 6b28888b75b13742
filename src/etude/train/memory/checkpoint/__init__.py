"""Checkpoints: a folder a step, whole or absent, verified before it is believed."""

from etude.train.memory.checkpoint.content import Content
from etude.train.memory.checkpoint.reader import read, read_weights, verify
from etude.train.memory.checkpoint.store import Store

__all__ = ["Content", "Store", "read", "read_weights", "verify"]
