"""Deepfake video forensics: a video in, an honest verdict out. Light to import: no torch here."""

from __future__ import annotations
