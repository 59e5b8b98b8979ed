"""Tests of another package are run as that package's, by test_plugins.py."""

collect_ignore = ["third_party"]
