"""Tests of megagrow, one folder per room."""
