"""Encoders of frames: features of audio, or any other vectors along time; what is pooled of them, and heads."""
