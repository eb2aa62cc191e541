"""Tests of megagrow.config."""
