"""Audits of finished models: one module each, with the contract of `lethe.audits.base.AuditFunction`."""

from __future__ import annotations

from lethe.audits.base import AUDITS, Audited

__all__ = ["AUDITS", "Audited"]
