"""Warm worker groups and what they work on: run queue, jobs and leases, worker loop, and the cluster beneath."""
