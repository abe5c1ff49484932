"""Warm worker groups: mailbox, leases, worker loop."""
