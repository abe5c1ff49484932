"""Warm worker groups: queue, leases, worker loop."""
