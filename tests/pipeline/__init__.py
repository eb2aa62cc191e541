"""Tests of megagrow.pipeline."""
