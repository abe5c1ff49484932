"""A comparison's report: the papers' tables, drawings and sentences, from `StudyRecord.members`."""
