"""Tests of megagrow.growth.width."""
