"""Tests of megagrow.plan."""
