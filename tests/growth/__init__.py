"""Tests of megagrow.growth."""
