"""Tests of megagrow.runtime."""
